"""The dashboard with its HTTP headers: `streamlit run dashboard/serve.py -- conf/feature_events.yaml`.

The same pages as `streamlit run dashboard/app.py`, whose server sends no header that restrains a browser.
"""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.middleware import Middleware
from streamlit.starlette import App

# `streamlit run` puts the script's own folder on the path; the packages lie beside it.
if (_ROOT := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, _ROOT)

from dashboard.headers import Headers

app = App(Path(__file__).with_name("app.py"), middleware=[Middleware(Headers)])
