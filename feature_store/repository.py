"""What `feast apply` finds in this repository: the definitions made from the resource named by TIDEMILL_RESOURCE."""

import os
from pathlib import Path

from tidemill.core.settings import load_settings
from tidemill.features.definitions import definitions
from tidemill.spec.load import load

_settings, _ = load_settings()
entity, view, *_more, service = definitions(load(Path(os.environ["TIDEMILL_RESOURCE"])), _settings.lake_uri)
# Feast collects what it finds in the module; a view without its source in sight would be refused.
source = view.batch_source
labels = _more[0] if _more else None
labels_source = labels.batch_source if labels else None
