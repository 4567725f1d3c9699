"""What people see of the service from outside: log lines and health.

Concurrency   none; health asks the parts when it is asked.
Never         a token, a payload or a position in a line or an answer.
May import    app.core.
"""
