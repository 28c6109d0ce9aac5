"""The story that `feedback-loop demo` tells, and the sample it is told with."""
