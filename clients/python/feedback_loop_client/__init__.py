"""A client of ai-feedback-loop for other services: `FeedbackLoop`, and `AsyncFeedbackLoop` for asyncio."""

from feedback_loop_client._asynchronous import AsyncFeedbackLoop
from feedback_loop_client._client import FeedbackLoop, Found, Hit, VoteToken
from feedback_loop_client._transport import FeedbackLoopError

__all__ = ["AsyncFeedbackLoop", "FeedbackLoop", "FeedbackLoopError", "Found", "Hit", "VoteToken"]
