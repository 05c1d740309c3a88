"""The folder that `agenttrace run` puts on `PYTHONPATH`, for its `sitecustomize`.

Whatever else were in it could be imported by that name in every such process.
"""
