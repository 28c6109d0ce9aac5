"""Dashboard: the page behind the report's link, live in the browser."""
