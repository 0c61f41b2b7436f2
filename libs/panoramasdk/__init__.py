"""The application SDK: what AWS Panorama's `panoramasdk` was, on any machine that runs Belvedere.

    import panoramasdk

    node = panoramasdk.node()
    while True:
        medias = node.inputs.video_in.get()
        for media in medias:
            media.add_label("seen", 0.1, 0.1)
        node.outputs.video_out.put(medias)

Standard library, numpy and framelink only; Python 3.7 and up.
"""

from panoramasdk import _endpoint
from panoramasdk._errors import ModelError, NodeError, TimeoutException
from panoramasdk._media import media
from panoramasdk._node import node
from panoramasdk._ports import port

_endpoint.install()

__all__ = ["ModelError", "NodeError", "TimeoutException", "media", "node", "port"]
