"""
Let the package's page on an index lead somewhere.

The links of the README are relative, so that they hold in every checkout and fork; on an index they would be dead.
Where the project is kept is told by whoever releases it, in the environment: a fork is kept elsewhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# Address of the repository, as https://github.com/owner/name.
VARIABLE = "KLING_ASYNC_REPOSITORY"
# Picture or link of Markdown, up to its target, which is relative.
_RELATIVE = re.compile(r"(!?)(\[[^\]]*\]\()(?![a-z]+:|#|/)([^)\s]+)")


class Face(MetadataHookInterface):
    """The description, and the addresses beside it; without an address of the repository, the README as it stands."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set what is dynamic."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get(VARIABLE, "").rstrip("/")
        if repository:
            tag = f"v{metadata['version']}"
            # Who reads it on an index has no checkout.
            text = absolute(text, repository, tag).replace('".[cli]"', '"kling-async[cli]"')
            metadata["urls"] = {
                "Repository": repository,
                "Documentation": f"{repository}/blob/{tag}/docs/index.md",
                "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, repository: str, tag: str) -> str:
    """Return *text* with its relative links as they stand in *repository* at *tag*, so that they stay as they were released."""

    def whole(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}{link[2]}{repository}/{kind}/{tag}/{link[3]}"

    return _RELATIVE.sub(whole, text)
