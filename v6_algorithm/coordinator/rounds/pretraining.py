"""What `master` asks before the first round where `start.pretrain_epochs` wants it: one site's model to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.coordinator.rounds.reply_checks import ReplyCheck
from v6_algorithm.errors import FederationError


def pretrain(epochs: int, plan: Plan, folds: Sequence[FoldProgress], caller: Caller, check: ReplyCheck) -> list[str]:
    """Let each fold's largest site train alone for the others to start from; if it is lost, the next largest.

    Returns
    -------
    list of str
        Sentences for the researcher: who trained.

    Raises
    ------
    FederationError
        When no site gave a model of some fold.
    """
    candidates = {
        fold.number: sorted(plan.trainers(fold.number), key=lambda site: -plan.rows[site][fold.number]["train"])
        for fold in folds
    }
    setup = plan.setup.to_json()
    waiting = list(folds)
    lost: dict[str, Any] = {}
    notes = []
    while waiting:
        if not all(candidates[fold.number] for fold in waiting):
            reasons = "".join(f"\n  {site}: {missing}" for site, missing in sorted(lost.items()))
            raise FederationError(f"pretraining: no site gave a model{reasons}")
        asked: dict[str, list[FoldProgress]] = {}
        for fold in waiting:
            asked.setdefault(candidates[fold.number].pop(0), []).append(fold)
        items = {
            site: [fold.item(site, [], train=True) | {"epochs": epochs} for fold in site_folds]
            for site, site_folds in asked.items()
        }
        bodies = {site: {"setup": setup, "folds": site_folds} for site, site_folds in items.items()}
        # Its model comes back as it is, hidden in no sum: a node may refuse that.
        replies = caller.call("RPC_train", 0, bodies, together=1)
        for site, reply in replies:
            for fold, item in zip(asked[site], check.items(replies, site, reply, items[site]), strict=False):
                fold.begin(fold.pack(dict(item["reply"].state)))
                waiting = [other for other in waiting if other is not fold]
                of_fold = f"fold {fold.number}: " if len(folds) > 1 else ""
                notes.append(f"{of_fold}pretrained for {epochs} epochs at the largest site, '{site}'")
        lost |= replies.missing
    return notes
