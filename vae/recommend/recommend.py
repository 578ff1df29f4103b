"""``--recommend``: the best unseen items of each user, in raw ids, streamed into a file."""

from __future__ import annotations

import time

from vae.config import Config
from vae.load.histories import UserHistories, prepared_histories
from vae.load.item_filters import ItemFilters
from vae.recommend.recommender import Recommender
from vae.recommend.writer import table_writer
from vae.utils.run_log import RunLog


def recommend(
    config: Config,
    recommender: Recommender,
    log: RunLog,
    histories: UserHistories | None,
    filters: ItemFilters,
) -> dict[str, float]:
    """Write recommendations for all users to ``--output``.

    Args:
        config: flags: number of items per user, file.
        recommender: the model and its data; to be used on rank 0 alone.
        log: run log.
        histories: users to recommend for; None for all prepared ones.
        filters: what may be recommended.

    Returns:
        Number of users, number of cold-start users, users per second and, with filters, number of
        users with an empty list, by their log keys.

    Raises:
        UserError: the file cannot be written.
    """
    assert config.files.output is not None
    users = histories or prepared_histories(recommender.dataset)
    start = time.perf_counter()
    table = recommender.table(config.evaluation.explain > 0)
    if table.renamed:
        log.say(
            "Columns renamed because the ratings file uses their names: "
            f"{', '.join(f'{name} as {other}' for name, other in table.renamed.items())}."
        )
    precision = recommender.precision(config.evaluation.explain > 0)
    log.say(f"Precision of inference: {precision.description}.")
    cold_start_users = empty_users = 0
    k = min(config.evaluation.top_results, recommender.items)
    what = "Recommending and explaining" if config.evaluation.explain else "Recommending"
    with (
        table_writer(config.files.output, table.schema(users.user_ids)) as write,
        log.progress(what, users.users) as bar,
    ):
        batches = recommender.batches(users, k, filters, config.evaluation.explain, bar.update)
        for number, batch in enumerate(batches):
            cold_start_users += batch.cold_start_users
            empty_users += batch.empty_users
            if number == 0:
                log.say(table.examples(batch.rows))
            write(batch.rows)
    seconds = time.perf_counter() - start
    log.say(f"Recommendations for {users.users:,} users: {config.files.output}")
    summary = {
        "recommend_users": users.users,
        "recommend_popular_users": cold_start_users,
        "recommend_throughput": users.users / seconds,
    }
    if filters.are_given:
        log.say(f"Users to whom nothing is left to recommend: {empty_users:,}.")
        summary["recommend_empty_users"] = empty_users
    return summary
