"""Who is calling, what they may do and how much of it.

A request is signed (Signature Version 4, in a header or in the query) or carries a Bedrock API key. Either
names a key; the key has a tenant, a policy and quotas: together its `Principal`.
"""
