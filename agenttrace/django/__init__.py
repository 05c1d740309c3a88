"""agenttrace in a Django project: an app and a middleware.

    INSTALLED_APPS = [..., "agenttrace.django"]
    MIDDLEWARE = ["agenttrace.django.middleware.AgenttraceMiddleware", ...]
    AGENTTRACE = {"SERVICE_NAME": "shop", "HEARTBEAT_TIMEOUT": 60}

| module | owns |
|---|---|
| `apps` | the app: configures agenttrace when Django starts |
| `settings` | the setting `AGENTTRACE` |
| `middleware` | the middleware: names of views, clients that go away |

No span is made of a request: `opentelemetry-instrumentation-django` does that, and the
spans of agents are its children.
"""
