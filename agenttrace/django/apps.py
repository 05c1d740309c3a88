"""The Django app: agenttrace is configured when Django has read its settings."""

# Django brings no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import inspect

from django import conf
from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured

import agenttrace
from agenttrace.django.settings import wanted
from agenttrace.errors import SettingError, UnknownInstrumentationError


class AgenttraceConfig(AppConfig):  # type: ignore[misc]  # Django brings no types
    """Configures agenttrace as the setting `AGENTTRACE` says, and instruments."""

    name = "agenttrace.django"
    label = "agenttrace"
    verbose_name = "agenttrace"

    def ready(self) -> None:
        """Configure and instrument.

        Raises:
            ImproperlyConfigured: The setting cannot be meant.
        """
        known = tuple(inspect.signature(agenttrace.configure).parameters)
        asked = wanted(getattr(conf.settings, "AGENTTRACE", {}), known)
        try:
            agenttrace.configure(**asked.options)
            if asked.instrument is not None:
                agenttrace.instrument(*asked.instrument)
        except (SettingError, UnknownInstrumentationError) as error:
            message = f"AGENTTRACE: {error}"
            raise ImproperlyConfigured(message) from error
