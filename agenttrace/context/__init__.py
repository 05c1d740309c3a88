"""What is current, and for whom: scopes, activation, carriers, bound attributes.

Owns OpenTelemetry's context variable and the rules for leaving it.  Knows no span
but through OpenTelemetry's API.  The submodules are imported one by one on purpose:
`scope` is loaded while `opentelemetry.context` is still being imported, when the
entry point `opentelemetry_context` names it, and may import nothing of the rest.
"""

# Before any submodule: otherwise it would be `scope` that begins this import, which
# then would ask for a class that `scope` does not have yet.
import opentelemetry.context  # noqa: F401  # pyright: ignore[reportUnusedImport]  # see above
