"""`belvedere user …`, `belvedere key …`, `belvedere token …`.

Secrets go to stdout, once, where a command's purpose is to make one; whatever else there is to say goes to stderr.
"""

from __future__ import annotations

import argparse
import sys

from belvedere.cli.owner import Commands, Identity, moment, table
from belvedere.v1 import identity_pb2 as pb

HOURS_DEFAULT = 12.0


def add_users(parser: argparse.ArgumentParser) -> None:
    """`belvedere user`."""
    commands = Commands(parser)
    create = commands.add("create", create_user, "make a user, who may do nothing until policies are attached")
    create.add_argument("name")
    create.add_argument(
        "--policy", action="append", default=[], help="attach this policy (name or ARN); may be repeated"
    )
    commands.add("list", list_users, "all users with their policies")
    delete = commands.add("delete", delete_user, "delete a user with keys, tokens and sessions")
    delete.add_argument("name")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """`belvedere key`."""
    commands = Commands(parser)
    create = commands.add(
        "create", create_key, "make an access key and print it: the only time that its secret is told"
    )
    create.add_argument("--user", required=True)
    listed = commands.add("list", list_keys, "a user's access keys, and when each was used last")
    listed.add_argument("--user", required=True)
    for name, run, text in (
        ("disable", disable_key, "refuse an access key until it is enabled again"),
        ("enable", enable_key, "accept an access key again"),
        ("delete", delete_key, "delete an access key"),
    ):
        commands.add(name, run, text).add_argument("access_key_id", metavar="ACCESS_KEY_ID")


def add_tokens(parser: argparse.ArgumentParser) -> None:
    """`belvedere token`."""
    commands = Commands(parser)
    create = commands.add("create", create_token, "make a bearer token and print it: the only time that it is told")
    create.add_argument("--user", required=True)
    create.add_argument("--hours", type=float, default=HOURS_DEFAULT, help=f"how long it lasts ({HOURS_DEFAULT:g})")
    revoke = commands.add("revoke", revoke_tokens, "make all of a user's tokens up to now worthless")
    revoke.add_argument("--user", required=True)


def create_user(identity: Identity, options: argparse.Namespace) -> None:
    from belvedere.cli.policies import policy_arn

    # Looked up first, so that a wrong name leaves no user behind.
    policies = [policy_arn(identity, name) for name in options.policy]
    user = identity.ask(pb.CreateUserRequest(user_name=options.name)).user
    for arn in policies:
        identity.ask(pb.AttachPolicyRequest(policy_arn=arn, user_name=options.name))
    print(user.arn)


def list_users(identity: Identity, options: argparse.Namespace) -> None:
    users = identity.ask(pb.ListUsersRequest()).users
    rows = [(u.name, moment(u.created_time), str(u.access_keys), _names(u.policy_arns)) for u in users]
    table(("NAME", "CREATED", "KEYS", "POLICIES"), rows)


def delete_user(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.DeleteUserRequest(user_name=options.name))


def create_key(identity: Identity, options: argparse.Namespace) -> None:
    made = identity.ask(pb.CreateAccessKeyRequest(user_name=options.user))
    print(f"AWS_ACCESS_KEY_ID={made.access_key_id}\nAWS_SECRET_ACCESS_KEY={made.secret_access_key}")
    print("Keep the secret: it is told only now.", file=sys.stderr)


def list_keys(identity: Identity, options: argparse.Namespace) -> None:
    keys = identity.ask(pb.ListAccessKeysRequest(user_name=options.user)).access_keys
    rows = []
    for key in keys:
        used = moment(key.last_used_time) if key.HasField("last_used_time") else "never"
        where = f"{key.last_used_service} in {key.last_used_region}" if key.last_used_service else ""
        state = "active" if key.active else "disabled"
        rows.append((key.access_key_id, state, moment(key.created_time), used, where))
    table(("ACCESS KEY", "STATE", "CREATED", "LAST USED", "FOR"), rows)


def disable_key(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.UpdateAccessKeyRequest(access_key_id=options.access_key_id, active=False))


def enable_key(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.UpdateAccessKeyRequest(access_key_id=options.access_key_id, active=True))


def delete_key(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.DeleteAccessKeyRequest(access_key_id=options.access_key_id))


def create_token(identity: Identity, options: argparse.Namespace) -> None:
    seconds = min(max(round(options.hours * 3600), 1), 2**31 - 1)
    made = identity.ask(pb.CreateBearerTokenRequest(user_name=options.user, duration_seconds=seconds))
    print(made.token)
    print(f"Good until {moment(made.expires_at)}; it is told only now.", file=sys.stderr)


def revoke_tokens(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.RevokeBearerTokensRequest(user_name=options.user))


def _names(arns: list[str]) -> str:
    return ", ".join(arn.rpartition("/")[2] for arn in arns) or "-"
