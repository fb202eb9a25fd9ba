"""Strategies for sites whose data differ: they keep local steps from drifting apart, or undo what drift does.

What a site's training needs of them is two numbers for each parameter at most: a pull towards the received model, and
a constant that is added to the gradient, or the site's own last model. Both are made here and sent with the request,
from what the replies told; so a site keeps nothing from round to round, losing its folder changes nothing, and a
repeated request is answered alike. The price is memory: one tensor for each parameter and site, at the organisation
that runs `master`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from v6_algorithm.coordinator.strategies.averaging import State, cast
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.coordinator.strategies.reply import Message, Reply
from v6_algorithm.exchange import wire
from v6_algorithm.experiment.optimisers import local_reach


class FedProx(FedAvg):
    """Each site minimises its loss + μ/2 ‖w − w_received‖², so that many local steps lead less far away.

    With `adaptive` μ grows by 0.1 after a round in which the mean training loss grew, and shrinks by 0.1 after five
    in a row in which it fell. Large μ slows learning; small μ is FedAvg.

    References
    ----------
    Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020; the adaptation is in its section 5.3.2.
    """

    STEP, PATIENCE = 0.1, 5
    joins = True

    def message(self, site: str) -> Message:
        """Send μ."""
        return {"mu": float(self.kept["mu"]["mu"]) if self.kept else self.section.mu}

    def step(self, combined: State) -> State:
        """Step as FedAvg does, and adapt μ."""
        if self.section.adaptive:
            weights = [self.weigh(reply) for reply in self.seen]
            loss = sum(weight * reply.loss for weight, reply in zip(weights, self.seen, strict=True)) / sum(weights)
            before = self.kept.get("mu") or {"mu": torch.tensor(self.section.mu), "falls": torch.tensor(0.0)}
            mu, falls = float(before["mu"]), float(before["falls"])
            if "loss" in before:
                falls = falls + 1 if loss < float(before["loss"]) else 0
                mu += self.STEP if loss > float(before["loss"]) else 0
            if falls == self.PATIENCE:
                mu, falls = max(mu - self.STEP, 0.0), 0
            values = {"mu": mu, "falls": falls, "loss": loss}
            self.kept["mu"] = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        return super().step(combined)


class Remembering(FedAvg):
    """Base of those that keep a term for each site, made of its last reply.

    Terms of a round are kept when it made a model, so a round that failed leaves no trace.
    """

    def term(self, reply: Reply) -> State:
        """Return a site's new term from its reply."""
        raise NotImplementedError

    @property
    def hidden(self) -> bool:
        """Whether the sites keep their terms: under secure aggregation there is no reply of one to make a term of."""
        return self.experiment.privacy.secure_aggregation is not None

    def add(self, reply: Reply) -> None:
        """Take in a reply, and the term that it tells."""
        super().add(reply)
        if reply.rows and not self.hidden:
            self._terms[f"term/{reply.site}"] = self.term(reply)

    def add_stack(self, stacks: Mapping[str, torch.Tensor], replies: Sequence[Reply]) -> None:
        """Take in several sites' models, and the terms that they tell."""
        super().add_stack(stacks, replies)
        for layer, reply in enumerate(replies):
            state = {name: stacks[name][layer] for name in self.spec}
            # A term must not hold those of all others in memory.
            term = {name: tensor.clone() for name, tensor in self.term(replace(reply, state=state)).items()}
            self._terms[f"term/{reply.site}"] = term

    def step(self, combined: State) -> State:
        """Step as FedAvg does, with the new terms kept."""
        self.kept |= self._terms
        return super().step(combined)

    def _begin(self) -> None:
        super()._begin()
        self._terms: dict[str, State] = {}


class Moon(Remembering):
    """MOON: each site minimises its loss + μ · the mean over its rows of −log(eᵍ / (eᵍ + eᵒ)), which compares models.

    With z the features of a row, of which the last layer makes the output: g = cos(z, z_received) / τ, with the model
    as it was received, and o = cos(z, z_own) / τ, with the site's own last model. In a site's first round there is no
    own model, and it is FedAvg. Features of one narrow layer leave little to compare; an own model from many rounds
    ago, of a site that comes rarely, may be any way off.

    References
    ----------
    Li et al., Model-Contrastive Federated Learning, CVPR 2021; its z come from a projection head of their own.
    """

    joins = True

    def message(self, site: str) -> Message:
        """Send μ, τ and the site's own last model; under secure aggregation it has all of them."""
        if self.hidden:
            return {"keeps": True}
        previous = self.kept.get(f"term/{site}")
        if previous is None or not self.section.mu:
            return {}
        return {"contrast": {"mu": self.section.mu, "tau": self.section.tau, "own": wire.Held(previous, self.spec)}}

    def term(self, reply: Reply) -> State:
        """Return the model that the site trained, which `clip` leaves as it is."""
        # As it would be sent; of a reply to a rounded model the parameters are in float64.
        return cast(reply.state, self.spec)


class Corrected(Remembering):
    """Base of those whose terms, one tensor a parameter, start at zero and make a correction of the gradient.

    A site that was sent the correction c, or 0, and moved the parameters by Δ, has the term −c − sΔ from then on, with
    some strength s. Terms and corrections of several sites are stacks, tensors by name, (sites, …).
    """

    needs_sent = True
    # The corrections of a round, which layer of them is which site's, and what they are known to be.
    _sent_stack: State
    _layers: dict[str, int]
    _checked: wire.StateSpec | None

    def corrected(self, sites: Sequence[str]) -> list[str]:
        """Return those of some sites that are sent a correction."""
        raise NotImplementedError

    def corrections(self, terms: State) -> State:
        """Return the stack of what sites add to their gradients, float64, from that of their terms."""
        raise NotImplementedError

    def strength(self, reply: Reply) -> float:
        """Return s of a reply."""
        raise NotImplementedError

    def messages(self, number: int, sites: Sequence[str], *, known: bool) -> dict[str, Message]:
        """Return what each site's request tells its training; all corrections are made at once."""
        chosen = [] if self.hidden else self.corrected(sites)
        # In the model's precision: what a site computes with is what is reckoned with here.
        self._sent_stack = cast(self.corrections(self.terms_of(chosen)), self.spec) if chosen else {}
        self._layers = {site: layer for layer, site in enumerate(chosen)}
        finite = all(map(wire.all_finite, self._sent_stack.values()))
        self._checked = {name: self.spec[name] for name in self.parameters} if finite else None
        return super().messages(number, sites, known=known)

    def message(self, site: str) -> Message:
        """Send the correction."""
        if site not in self._layers:
            return {}
        return {"correction": wire.Held(wire.Stacked(self._sent_stack, self._layers[site]), self._checked)}

    def terms_of(self, sites: Sequence[str]) -> State:
        """Return the stack of some sites' terms; zeros before a site's first reply."""
        zeros = self._zeros()
        terms = [self.kept.get(f"term/{site}", zeros) for site in sites]
        return {name: torch.stack([term[name] for term in terms]) for name in self.parameters}

    def mean_term(self) -> State:
        """Return the mean of the terms of all sites, by their share, those included that have none yet."""
        if self.hidden:
            return self.kept.get("mean", self._zeros())
        sites = [site for site in self.rows if f"term/{site}" in self.kept]
        if not sites:
            return self._zeros()
        shares = torch.tensor([self.share(site) for site in sites], dtype=torch.float64)
        return {name: torch.tensordot(shares, terms, 1) for name, terms in self.terms_of(sites).items()}

    def term(self, reply: Reply) -> State:
        """Return a site's new term."""
        of_one = {name: delta[None] for name, delta in self.update(reply.state).items()}
        return {name: term[0] for name, term in self._new_terms([reply], of_one).items()}

    def add_stack(self, stacks: Mapping[str, torch.Tensor], replies: Sequence[Reply]) -> None:
        """Take in several sites' models, and their new terms at once."""
        FedAvg.add_stack(self, stacks, replies)
        known = self.known
        updates = {name: stacks[name].double() - known[name].double() for name in self.parameters}
        new = {name: stack.unbind() for name, stack in self._new_terms(replies, updates).items()}
        # Where other sites train in the next round, one site's term must not hold those of all others in memory.
        alone = self.experiment.participation.fraction < 1
        for layer, reply in enumerate(replies):
            term = {name: terms[layer].clone() if alone else terms[layer] for name, terms in new.items()}
            self._terms[f"term/{reply.site}"] = term

    def _new_terms(self, replies: Sequence[Reply], updates: State) -> State:
        strengths = torch.tensor([self.strength(reply) for reply in replies], dtype=torch.float64)
        places = [place for place, reply in enumerate(replies) if reply.site in self._layers]
        layers = [self._layers[replies[place].site] for place in places]
        terms = {}
        for name, update in updates.items():
            term = -strengths.view(-1, *[1] * (update.dim() - 1)) * update
            if places:
                term[places] -= self._sent_stack[name][layers].double()
            terms[name] = term
        return terms

    def _zeros(self) -> State:
        return {name: torch.zeros(self.spec[name].shape, dtype=torch.float64) for name in self.parameters}

    def _begin(self) -> None:
        super()._begin()
        self._sent_stack, self._layers, self._checked = {}, {}, None


class Scaffold(Corrected):
    """SCAFFOLD: each local step follows g − cᵢ + c, the site's gradient less what is special about the site.

    A site's control variate cᵢ is its mean gradient over its last round (option II): cᵢ ← cᵢ − c + (x − yᵢ) / (Kη),
    with K steps of size η from x to yᵢ; c is the mean over all sites by their share. With momentum β the K gradients
    count (1 − βʲ) / (1 − β) times for j = K, …, 1, and Kη becomes the sum of that. Variates start at zero, so the
    first round is FedAvg's. At a fixed point the mean gradient of the sites is zero, which is not so for FedAvg.
    Sites that come rarely have stale variates, and then it may be worse than FedAvg.

    References
    ----------
    Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML 2020.
    """

    joins = True

    def message(self, site: str) -> Message:
        """Send c − cᵢ; under secure aggregation c, for the site has cᵢ, and ask how that changes."""
        if not self.hidden:
            return super().message(site)
        mean = {"mean": wire.pack(cast(self.mean_term(), self.spec))} if self.kept else {}
        return {"keeps": True, "term": True} | mean

    def add(self, reply: Reply) -> None:
        """Take in a reply; of all sites under masks with the sum of how their variates changed, by their share."""
        super().add(reply)
        if reply.rows and reply.term is not None:
            mean = self.mean_term()
            self._terms["mean"] = {name: mean[name] + change for name, change in reply.term.items()}

    def corrected(self, sites: Sequence[str]) -> list[str]:
        """Return all sites, once any has a variate."""
        return list(sites) if self.kept else []

    def corrections(self, terms: State) -> State:
        """Return c − cᵢ."""
        mean = self.mean_term()
        return {name: mean[name] - variates for name, variates in terms.items()}

    def strength(self, reply: Reply) -> float:
        """Return 1 / (Kη): Kη is how far K steps of a gradient of 1 lead."""
        lr, reach = local_reach(self.experiment.training, self.round, self.lr, reply.steps)
        return 1 / (lr * reach)


class FedDyn(Corrected):
    """FedDyn: each site's loss gets −⟨hᵢ, w⟩ + αᵢ/2 ‖w − x‖², under which the sites' minima meet that of the mean.

    hᵢ ← hᵢ − αᵢ(yᵢ − x) is a site's gradient at its minimum yᵢ; the next model is mean(yᵢ) − h/α, with h the mean of
    all hᵢ by their share pᵢ, and αᵢ = α / (m pᵢ) for m sites. It wants each site near its minimum (many local steps);
    small α with noisy gradients can make h grow, and the run diverge.

    References
    ----------
    Acar et al., Federated Learning Based on Dynamic Regularization, ICLR 2021.
    """

    joins = True

    def message(self, site: str) -> Message:
        """Send the strength of the pull and the linear term; under secure aggregation the site has both."""
        if self.hidden:
            return {"keeps": True}
        return super().message(site) | {"mu": self._alpha(site)}

    def corrected(self, sites: Sequence[str]) -> list[str]:
        """Return those that have an hᵢ."""
        return [site for site in sites if f"term/{site}" in self.kept]

    def corrections(self, terms: State) -> State:
        """Return −hᵢ."""
        return {name: -linear for name, linear in terms.items()}

    def strength(self, reply: Reply) -> float:
        """Return αᵢ."""
        return self._alpha(reply.site)

    def add(self, reply: Reply) -> None:
        """Take in a reply; of those under masks Σ pᵢ hᵢ grows by −α/m Σ (yᵢ − x) over the sites in the sum."""
        super().add(reply)
        if reply.rows and reply.share is not None:
            mean, scale = self.mean_term(), self.section.alpha * reply.share
            self._terms["mean"] = {n: mean[n] - scale * delta for n, delta in self.update(reply.state).items()}

    def weigh(self, reply: Reply) -> float:
        """Count each site the same: the shares are in hᵢ."""
        return 1.0

    def step(self, combined: State) -> State:
        """Return the mean model, less h/α."""
        following, mean = super().step(combined), self.mean_term()
        return following | {name: following[name] - mean[name] / self.section.alpha for name in self.parameters}

    def _alpha(self, site: str) -> float:
        return float(self.section.alpha / (len(self.rows) * self.share(site)))


class FedNova(FedAvg):
    """Updates are divided by how far a site's steps could go, and their mean is scaled by the mean of that.

    x ← x + τ Σ pᵢ (yᵢ − x) / aᵢ with τ = Σ pᵢ aᵢ; aᵢ is the number of steps, with momentum that of `local_reach`.
    Sites of the same number of steps give FedAvg. It matters with `local_epochs`, where a site with more rows makes
    more steps, and would pull the model towards its own minimum twice.

    References
    ----------
    Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, NeurIPS 2020.
    """

    needs_sent = True
    joins = True

    @property
    def scales(self) -> bool:
        """True: each update is divided by aᵢ."""
        return True

    def scale(self, reply: Reply, length: float) -> float:
        """Return 1 / aᵢ."""
        return 1 / self._reach(reply)

    def _reach(self, reply: Reply) -> float:
        return local_reach(self.experiment.training, self.round, self.lr, reply.steps)[1]

    def step(self, combined: State) -> State:
        """Scale the mean update, and step as FedAvg does."""
        weights, reaches = [self.weigh(reply) for reply in self.seen], [self._reach(reply) for reply in self.seen]
        tau = sum(weight * reach for weight, reach in zip(weights, reaches, strict=True)) / sum(weights)
        return super().step(self.moved(combined, lambda length: tau))
