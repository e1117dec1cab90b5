"""From the pages of a listing to a listing that says whether it is complete."""

from collections.abc import Iterable

from ragassets.core.sources import Listing, ListingPage, SourceObject
from ragassets.errors import SourceUnavailableError


def gather_pages(pages: Iterable[ListingPage]) -> Listing:
    """All objects of the pages; incomplete where they broke off.

    Raises:
        SourceUnavailableError: They broke off before the first object.
    """
    objects: list[SourceObject] = []
    try:
        for page in pages:
            objects += page.objects
    except SourceUnavailableError as error:
        if not objects:
            raise
        message = f"the listing broke off after {len(objects)} objects: {error}"
        return Listing(objects, is_complete=False, message=message)
    return Listing(objects, is_complete=True)
