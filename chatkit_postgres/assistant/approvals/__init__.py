"""Runs that ask a person before they act: asking, and going on when the answers are there."""

from chatkit_postgres.assistant.approvals.requests import APPROVAL_ACTION, ApprovalRequest, Decision, approval_card

__all__ = ["APPROVAL_ACTION", "ApprovalRequest", "Decision", "approval_card"]
