"""The jobs at cron-job.org that wake the loop and trigger it."""
