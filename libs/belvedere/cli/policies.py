"""`belvedere policy …` and `belvedere role …`. Documents are files in AWS's grammar, `-` is stdin."""

from __future__ import annotations

import argparse
from pathlib import Path

from belvedere.cli.errors import CliError
from belvedere.cli.owner import Commands, Identity, moment, read, table
from belvedere.v1 import identity_pb2 as pb


def add_policies(parser: argparse.ArgumentParser) -> None:
    """`belvedere policy`."""
    commands = Commands(parser)
    create = commands.add("create", create_policy, "make a policy")
    create.add_argument("name")
    create.add_argument("document", type=Path, help="JSON")
    update = commands.add("update", update_policy, "give a policy another document")
    update.add_argument("policy", help="name or ARN")
    update.add_argument("document", type=Path, help="JSON")
    commands.add("list", list_policies, "the policies that are always there, and your own")
    show = commands.add("show", show_policy, "a policy's document")
    show.add_argument("policy", help="name or ARN")
    delete = commands.add("delete", delete_policy, "delete a policy that is attached to nobody")
    delete.add_argument("policy", help="name or ARN")
    for name, run in (("attach", attach), ("detach", detach)):
        one = commands.add(name, run, f"{name} a policy {'to' if name == 'attach' else 'from'} a user or a role")
        one.add_argument("policy", help="name or ARN")
        holder = one.add_mutually_exclusive_group(required=True)
        holder.add_argument("--user")
        holder.add_argument("--role")


def add_roles(parser: argparse.ArgumentParser) -> None:
    """`belvedere role`."""
    commands = Commands(parser)
    create = commands.add(
        "create", create_role, "make a role; application instances may use it unless --trust says otherwise"
    )
    create.add_argument("name")
    create.add_argument("--trust", type=Path, help="trust policy (JSON): who may take it on")
    create.add_argument(
        "--policy", action="append", default=[], help="attach this policy (name or ARN); may be repeated"
    )
    trust = commands.add("trust", trust_role, "give a role another trust policy")
    trust.add_argument("name")
    trust.add_argument("document", type=Path, help="JSON")
    commands.add("list", list_roles, "all roles with their policies")
    show = commands.add("show", show_role, "a role's trust policy")
    show.add_argument("name")
    delete = commands.add("delete", delete_role, "delete a role; credentials given out for it stop working")
    delete.add_argument("name")


def policy_arn(identity: Identity, name: str) -> str:
    """The ARN of a policy by its name or ARN. Raises CliError that names what there is."""
    if name.startswith("arn:"):
        return name
    policies = identity.ask(pb.ListPoliciesRequest()).policies
    found = [policy.arn for policy in policies if policy.name == name]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise CliError(f"{name!r} is the name of {' and '.join(found)}: give the ARN")
    raise CliError(f"there is no policy {name!r}: {', '.join(policy.name for policy in policies)}")


def create_policy(identity: Identity, options: argparse.Namespace) -> None:
    text = read(options.document)
    print(identity.ask(pb.CreatePolicyRequest(policy_name=options.name, policy_document=text)).policy.arn)


def update_policy(identity: Identity, options: argparse.Namespace) -> None:
    arn = policy_arn(identity, options.policy)
    identity.ask(pb.UpdatePolicyRequest(policy_arn=arn, policy_document=read(options.document)))


def list_policies(identity: Identity, options: argparse.Namespace) -> None:
    rows = []
    for policy in identity.ask(pb.ListPoliciesRequest()).policies:
        changed = moment(policy.updated_time) if policy.HasField("updated_time") else "always there"
        rows.append((policy.name, changed, str(policy.attachments), policy.arn))
    table(("NAME", "CHANGED", "ATTACHED", "ARN"), rows)


def show_policy(identity: Identity, options: argparse.Namespace) -> None:
    print(identity.ask(pb.GetPolicyRequest(policy_arn=policy_arn(identity, options.policy))).policy_document)


def delete_policy(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.DeletePolicyRequest(policy_arn=policy_arn(identity, options.policy)))


def attach(identity: Identity, options: argparse.Namespace) -> None:
    arn = policy_arn(identity, options.policy)
    identity.ask(pb.AttachPolicyRequest(policy_arn=arn, user_name=options.user, role_name=options.role))


def detach(identity: Identity, options: argparse.Namespace) -> None:
    arn = policy_arn(identity, options.policy)
    identity.ask(pb.DetachPolicyRequest(policy_arn=arn, user_name=options.user, role_name=options.role))


def create_role(identity: Identity, options: argparse.Namespace) -> None:
    policies = [policy_arn(identity, name) for name in options.policy]
    trust = read(options.trust) if options.trust is not None else ""
    role = identity.ask(pb.CreateRoleRequest(role_name=options.name, assume_role_policy_document=trust)).role
    for arn in policies:
        identity.ask(pb.AttachPolicyRequest(policy_arn=arn, role_name=options.name))
    print(role.arn)


def trust_role(identity: Identity, options: argparse.Namespace) -> None:
    text = read(options.document)
    identity.ask(pb.UpdateAssumeRolePolicyRequest(role_name=options.name, policy_document=text))


def list_roles(identity: Identity, options: argparse.Namespace) -> None:
    rows = []
    for role in identity.ask(pb.ListRolesRequest()).roles:
        policies = ", ".join(arn.rpartition("/")[2] for arn in role.policy_arns) or "-"
        rows.append((role.name, moment(role.created_time), policies, role.arn))
    table(("NAME", "CREATED", "POLICIES", "ARN"), rows)


def show_role(identity: Identity, options: argparse.Namespace) -> None:
    found = [role for role in identity.ask(pb.ListRolesRequest()).roles if role.name == options.name]
    if not found:
        raise CliError(f"there is no role {options.name!r}: `belvedere role list` shows what there is")
    print(found[0].assume_role_policy_document)


def delete_role(identity: Identity, options: argparse.Namespace) -> None:
    identity.ask(pb.DeleteRoleRequest(role_name=options.name))
