"""Ray, on this machine or on a cluster, at arm's length: the driver never imports it.

A process of its own, the keeper, starts or joins Ray and holds the ranks' actors; the driver talks to it over a socket
(`line`). So the driver hears its signals at every moment, Ray's end is an answer that does not come rather than the
driver's end, and Ray and all it starts have the keeper's reduced environment, not the user's.

    backend  the driver's side: a Backend whose jobs run in the keeper
    start    what to start or to join: settings, token, private folder, checks before the first word to Ray
    keeper   the process itself: joins Ray, looks at the nodes, serves the driver
    nodes    what the nodes have, and whether they run the code and the versions that the driver has
    job      one command's actors: room for them, their start, their end
    rank     the actor behind one process, and what Ray's dashboard shows of it
"""
