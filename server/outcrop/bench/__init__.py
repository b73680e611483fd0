"""Measures a server from outside, under a load that does not wait for it.

Definitions, which are those of vLLM's, aiperf's and MLPerf's:

- TTFT: from sending a request to the first piece of its answer; - ITL: from one piece of an answer to the
next, over all pieces of all answers (a server may send several tokens in one); - TPOT: of one answer, from
its first piece to its last, divided by its output tokens less one, as the server counts them; - E2E: from
sending a request to the end of its answer; - goodput: answers a second that kept to both limits of the SLO; -
throughput: tokens of complete answers, over the time from the first request sent to the end of the last; -
delay: by how much a request was sent later than it was due. A client that cannot keep up with its own plan
measures itself: beyond some milliseconds the figures are of the client.

A percentile is the smallest value that more than that share of all do not exceed. Answers that fail are
counted by what went wrong and are in no latency. Warm-up is in no figure."""
