"""Models become answers: each is loaded once on the appliance, whoever uses it, and called through framelink.

Knows models and framelink. Must not know cameras, applications, or what the numbers mean.
"""
