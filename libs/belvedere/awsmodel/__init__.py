"""The Panorama API as data: one file in botocore's model format, read by our front door and by AWS's own clients.

model = panorama()                      operations and shapes, typed
install(Path("~/.aws/models"))          what `belvedere aws-model install` does
model_folder()                          for AWS_DATA_PATH
"""

from belvedere.awsmodel.errors import InstallFailed, ModelError, ModelInvalid
from belvedere.awsmodel.install import default_folder, install
from belvedere.awsmodel.model import Member, Operation, ServiceModel, Shape, load, model_folder, panorama

__all__ = [
    "InstallFailed",
    "Member",
    "ModelError",
    "ModelInvalid",
    "Operation",
    "ServiceModel",
    "Shape",
    "default_folder",
    "install",
    "load",
    "model_folder",
    "panorama",
]
