"""What is found, paired and ranked for many scores at once: the bits of one by one."""

import numpy as np

from v6_algorithm.learning.metrics import histogram, sparse


def test_a_fine_bin_is_that_of_a_search_of_all_edges():
    generator = np.random.default_rng(1)
    edges = histogram.bin_edges(histogram.FINE_BINS)
    drawn = generator.choice(edges, 5000)
    spread = 1 / (1 + np.exp(-np.clip(generator.normal(size=20_000) * 40, -700, 700)))
    odd = [0.0, 1.0, -1e-7, 1 + 1e-7, 5e-324, np.nextafter(1, 0)]
    beside = [np.nextafter(drawn, 2), np.nextafter(drawn, -1)]
    scores = np.concatenate([generator.random(5000), spread, drawn, *beside, odd])
    expected = np.searchsorted(edges, scores, side="right")
    assert (histogram.bin_index(scores, histogram.FINE_BINS) == expected).all()


def test_some_edges_are_those_of_the_table_bit_for_bit():
    bins = histogram.FINE_BINS
    edges = histogram.bin_edges(bins)
    places = np.random.default_rng(4).integers(0, bins, 5000)
    places[:3] = 0, 1, bins - 1
    assert (histogram.lower_edges(places, bins) == np.where(places > 0, edges[np.maximum(places - 1, 0)], 0)).all()
    for number in (1, 7, 1000):
        # However many are made at once.
        some = places[:number]
        assert (histogram.middles(some, bins) == histogram.middles(places, bins)[:number]).all()
    sought = np.arange(1, 100) / 100
    for count in (64, 512, bins):
        all_edges = histogram.bin_edges(count)
        place, edge = histogram.nearest_edges(sought, count)
        assert place.tolist() == [int(np.abs(all_edges - value).argmin()) for value in sought]
        assert (edge == all_edges[place]).all()


def test_the_ranking_of_several_classes_at_once_has_the_bits_of_each_alone():
    generator = np.random.default_rng(2)
    for _ in range(50):
        pairs = []
        for length in generator.integers(1, 90, generator.integers(1, 8)).tolist():
            counts = generator.integers(0, 4, (2, length))
            counts[:, generator.integers(length)] += 1
            filled = counts[:, counts.any(axis=0)]
            pairs.append((filled[0], filled[1]))
        aurocs, precisions = histogram.rankings(pairs)
        assert aurocs == [histogram.auroc(*pair) for pair in pairs]
        assert precisions == [histogram.average_precision(*pair) for pair in pairs]


def test_histograms_that_are_paired_at_once_are_those_of_each_class():
    generator = np.random.default_rng(3)
    keys = generator.integers(0, 4 * 50, 300)
    of_class = generator.random(300) < 0.3
    positives, negatives = (sparse.from_keys(keys[rows], 4, 50) for rows in (of_class, ~of_class))
    expected = [sparse.paired(*pair) for pair in zip(positives, negatives, strict=True)]
    plain = [[dict(each) for each in given] for given in (positives, negatives)]
    for given in ((positives, negatives), plain):
        for pair, other in zip(sparse.all_paired(*given, 50), expected, strict=True):
            assert all((mine == its).all() for mine, its in zip(pair, other, strict=True))
