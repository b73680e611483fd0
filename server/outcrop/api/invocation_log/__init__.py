"""Model invocation logging: what was asked and answered, in the service's own record schema.

Off until a client puts a configuration. The records are those of
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html, in gzipped files of JSON
lines; bodies of more than 100 KB are objects of their own beside them.
"""
