"""The search of the built site, as its page runs it in the browser (Material for MkDocs 9)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lunr.builder import Builder
from lunr.stop_word_filter import WORDS, stop_word_filter

_TAGS = re.compile(r"<[^>]+>")


class SiteSearch:
    """Searches `search/search_index.json` of a site.

    Fields, boosts, the separator, the wildcard behind each word and the boost of pages on which all
    words are found are those of the site's own script.
    """

    def __init__(self, site: Path):
        found = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
        self._separator = re.compile(found["config"]["separator"])
        builder = Builder()
        builder.b(0)
        builder.pipeline.add(stop_word_filter)
        builder.ref("location")
        for name, options in found["config"]["fields"].items():
            builder.field(name, boost=options["boost"], extractor=self._extractor(name))
        for doc in found["docs"]:
            builder.add(doc, {"boost": doc.get("boost", 1)})
        self._index = builder.build()

    def _extractor(self, name):
        return lambda doc: self._words(_TAGS.sub(" ", doc.get(name) or ""))

    def _words(self, text: str) -> list[str]:
        return [word for word in self._separator.split(text.lower()) if word]

    def pages(self, query: str) -> list[str]:
        """The pages that are found, best first: "how-to/resume"."""
        words = self._words(query)
        scored = []
        for hit in self._index.search(" ".join(f"{word}*" for word in words)):
            terms = hit["match_data"].metadata
            here = [any(term.startswith(word) for term in terms) for word in words]
            # A stop word that is not there does not count as missing.
            wanted = [yes for word, yes in zip(words, here) if yes or word not in WORDS]
            page, _, section = hit["ref"].partition("#")
            boost = (not section) + sum(wanted) / len(wanted)
            scored.append((hit["score"] * (1 + boost**2), page.strip("/")))
        return list(dict.fromkeys(page for _, page in sorted(scored, reverse=True)))
