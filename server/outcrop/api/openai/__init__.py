"""OpenAI's API, as vLLM and llama.cpp's server speak it, on the models of the catalog."""
