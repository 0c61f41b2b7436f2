"""The policies that are there from the start, by the ARNs that AWS gives them (Belvedere's own: path /belvedere/).

Pure. AWSPanoramaFullAccess allows what AWS's of that name does, as far as there is such a thing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.identity.policy.document import Policy, parse_policy

PREFIX = "arn:aws:iam::aws:policy/"
ADMINISTRATOR_ACCESS = f"{PREFIX}AdministratorAccess"
PANORAMA_FULL_ACCESS = f"{PREFIX}AWSPanoramaFullAccess"
READ_ONLY = f"{PREFIX}belvedere/BelvedereReadOnly"
APPLICATION_ACCESS = f"{PREFIX}belvedere/BelvedereApplicationAccess"

VERSION = "2012-10-17"

DOCUMENTS: Mapping[str, dict[str, Any]] = {
    ADMINISTRATOR_ACCESS: {
        "Version": VERSION,
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    },
    PANORAMA_FULL_ACCESS: {
        "Version": VERSION,
        "Statement": [
            {"Effect": "Allow", "Action": "panorama:*", "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload",
                           "s3:ListMultipartUploadParts", "s3:GetBucketLocation"],
                "Resource": ["arn:aws:s3:::*panorama*", "arn:aws:s3:::*panorama*/*"],
            },
            {
                "Effect": "Allow",
                "Action": ["logs:Describe*", "logs:GetLogEvents", "logs:FilterLogEvents"],
                "Resource": "arn:aws:logs:*:*:log-group:/aws/panorama/*",
            },
            {"Effect": "Allow", "Action": "logs:DescribeLogGroups", "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": ["cloudwatch:ListMetrics", "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics",
                           "cloudwatch:DescribeAlarms"],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": "*",
                "Condition": {"StringEquals": {"iam:PassedToService": "panorama.amazonaws.com"}},
            },
            {"Effect": "Allow", "Action": ["iam:ListRoles", "iam:GetRole"], "Resource": "*"},
        ],
    },
    READ_ONLY: {
        "Version": VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    # Seeing a device's video is reading, too.
                    "panorama:Describe*", "panorama:List*", "panorama:CreateViewerCredentials",
                    "s3:GetObject", "s3:ListBucket", "s3:ListAllMyBuckets", "s3:GetBucketLocation",
                    "logs:Describe*", "logs:Get*", "logs:FilterLogEvents", "logs:ListTagsForResource",
                    "cloudwatch:Describe*", "cloudwatch:Get*", "cloudwatch:List*",
                ],
                "Resource": "*",
            }
        ],
    },
    # What applications written for AWS Panorama do with their role: metrics, logs, and finding out what runs where.
    APPLICATION_ACCESS: {
        "Version": VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "cloudwatch:PutMetricData",
                    "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
                    "panorama:List*", "panorama:Describe*",
                ],
                "Resource": "*",
            }
        ],
    },
}  # fmt: skip

POLICIES: Mapping[str, Policy] = {arn: parse_policy(document) for arn, document in DOCUMENTS.items()}


def application_trust(account: str) -> dict[str, Any]:
    """Who may use the built-in role of applications: application instances, and whom the account's policies let."""
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "panorama.amazonaws.com", "AWS": f"arn:aws:iam::{account}:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
