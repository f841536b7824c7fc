"""Streams of keys: none is another, and the numbers stay."""

import itertools

import jax
import numpy as np

from experiments.keys import Stream, stream_key


def test_no_stream_is_another_for_any_seed():
    keys = {
        (stream.name, seed): bytes(np.asarray(jax.random.key_data(key)))
        for stream in Stream
        for seed in range(3)
        for key in [stream_key(stream, seed)]
    }
    # One number: the same for every seed. Importance sampling's first draws are those
    # that a run reports; other seeds of it have a stream of their own.
    for stream in Stream:
        own = [keys[stream.name, seed] for seed in range(3)]
        again = stream is Stream.LOG_LIKELIHOOD
        assert len(set(own)) == (3 if len(stream.value) > 1 or again else 1)
    for one, other in itertools.combinations(Stream, 2):
        names = {one, other}
        if names == {Stream.LOG_LIKELIHOOD, Stream.IMPORTANCE_AGAIN}:
            continue
        assert keys[one.name, 0] != keys[other.name, 0]


def test_the_key_of_an_evaluation_is_no_datapoint_s_key_of_another_seed():
    """A seed folded into the stream would be the key of the point of that index."""
    points = jax.vmap(jax.random.fold_in, (None, 0))(
        stream_key(Stream.LOG_LIKELIHOOD), np.arange(100)
    )
    again = np.asarray(jax.random.key_data(stream_key(Stream.LOG_LIKELIHOOD, 1)))
    assert not np.any(np.all(np.asarray(jax.random.key_data(points)) == again, axis=1))
