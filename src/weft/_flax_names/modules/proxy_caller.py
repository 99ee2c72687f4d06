"""Proxies of models, under the name that code of the NNX API imports them from."""

from weft._graph.proxy import CallableProxy as CallableProxy
