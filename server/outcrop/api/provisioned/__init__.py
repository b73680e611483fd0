"""Provisioned Throughput: places in a model's engine that belong to one ARN.

A model unit is one place: one request that may be in progress under the ARN with nobody before it. Up to its
units, what is asked by the ARN is admitted however full the server is, and runs ahead of every other request,
which gives its row and its KV blocks up where none are free (and is computed again later, without losing a
token). Rows and blocks that the ARN does not use, others do, until it wants them; its places among the
requests that the server admits are never others'. What is asked beyond the units is as any other request.
"""
