"""Accounts, users, roles, access keys, console sessions and the audit trail: who may do what, and who did."""
