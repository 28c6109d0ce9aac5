"""What two services must agree on: it knows no service.

Here: the language (events, settings, policy, reasons, commands) and the life of a process (kernel, runtime,
process). In the folders: how events travel (`bus`) and are dealt with (`delivery`), what that stands on
(`postgres`, `web`), what is promised (`contracts`) and what is seen (`telemetry`); models (`embedding`),
pictures (`charts`), and votes in another system (`mirror`).
"""
