"""Policies in AWS's JSON grammar: reading them, and deciding by them. Pure: no I/O, no clock, no randomness."""

from services.identity.policy.conditions import OPERATORS
from services.identity.policy.decide import Decision, Request, Trust, decide, trusts
from services.identity.policy.document import Policy, Statement, parse_policy, parse_text, parse_trust

__all__ = [
    "OPERATORS",
    "Decision",
    "Policy",
    "Request",
    "Statement",
    "Trust",
    "decide",
    "parse_policy",
    "parse_text",
    "parse_trust",
    "trusts",
]
