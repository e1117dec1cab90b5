"""A web site as a source: crawling it, politely and without leaving it."""
