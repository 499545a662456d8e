"""Settings that every test shares."""

import matplotlib

matplotlib.use("agg")
