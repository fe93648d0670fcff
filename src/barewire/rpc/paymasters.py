"""Paymasters and bundlers: providers of another kind, ranked and failed over by the same rules.

A paymaster sponsors the gas of an ERC-4337 user operation. ERC-7677 asks it twice: for a stub with
which gas is estimated (repeatable, so any vendor may be asked and asked again), and for the real
data (a promise to pay, so it is asked for once, of the one whose stub was used). What differs from
nodes is the rank: the fee and the share of promises kept count beside latency.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from barewire.errors import ConfigError
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble
from barewire.rpc.provider import Provider

__all__ = ["PROFILES", "Profile", "Sponsor", "Sponsored", "profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is particular about a vendor.

    Attributes:
        name: the vendor.
        url: its address for a chain, with ``{chain_id}`` and ``${env:...}`` to be filled in.
        price: its fee relative to the gas it pays (1.0 is none).
        context: keys that its ERC-7677 context may hold.
        bundles: the same address also takes user operations.
    """

    name: str
    url: str
    price: float
    context: tuple[str, ...]
    bundles: bool = True


PROFILES = {
    p.name: p
    for p in (
        Profile(
            "pimlico",
            "https://api.pimlico.io/v2/{chain_id}/rpc?apikey=${env:PIMLICO_KEY}",
            1.10,
            ("sponsorshipPolicyId", "token"),
        ),
        Profile(
            "gelato",
            "https://api.gelato.digital/bundlers/{chain_id}/rpc?sponsorApiKey=${env:GELATO_KEY}",
            1.08,
            ("type", "token"),
        ),
        Profile(
            "candide",
            "https://api.candide.dev/api/v3/{chain_id}/${env:CANDIDE_KEY}",
            1.05,
            ("sponsorshipPolicyId", "token"),
        ),
    )
}
"""Addresses as the vendors document them; fees are defaults to be set to what a contract says."""


def profile(name: str, chain_id: int, **settings: Any) -> ProviderConfig:
    """The provider that vendor `name` is on `chain_id`; `settings` override its fields.

    Raises:
        ConfigError: the vendor is not known.
    """
    known = PROFILES.get(name)
    if known is None:
        raise ConfigError(
            f"paymaster {name!r} is not known",
            hint=f"known are {', '.join(PROFILES)}; for another give a [[provider]] with its http",
        )
    methods = ["pm_"]
    if known.bundles:
        methods += ["eth_sendUserOperation", "eth_estimateUserOperationGas"]
        methods += ["eth_getUserOperation", "eth_supportedEntryPoints"]
    fields: dict[str, Any] = {
        "name": name,
        "http": known.url.replace("{chain_id}", str(chain_id)),
        "price": known.price,
        "methods": methods,
    }
    return ProviderConfig(**(fields | settings))


class _StubAnswer(msgspec.Struct):
    paymaster: str = ""
    paymasterData: str = ""  # noqa: N815  (ERC-7677's name)
    paymasterAndData: str = ""  # noqa: N815
    isFinal: bool = False  # noqa: N815


@dataclass(slots=True)
class Sponsored:
    """A user operation that a paymaster has promised to pay for.

    Attributes:
        operation: the user operation with the paymaster's fields filled in.
        vendor: who promised.
        tried: vendor to why it did not, for those asked before.
    """

    operation: dict[str, Any]
    vendor: str
    tried: dict[str, str] = field(default_factory=dict)


class Sponsor:
    """Many paymasters as one.

    Attributes:
        client: the pool of paymasters; bundler methods go through it too.
        entry_point: address of the EntryPoint contract.
        chain_id: the chain.
    """

    def __init__(
        self, providers: list[ProviderConfig], *, chain_id: int, entry_point: str, **config: Any
    ) -> None:
        # A paymaster need not tell its chain id and has no head; what it says is judged by use.
        settings: dict[str, Any] = {"vet": False, "follow_heads": False, "cache": "off"} | config
        self.client = RpcClient(RpcConfig(providers=providers, chain_id=chain_id, **settings))
        self.entry_point = entry_point
        self.chain_id = chain_id

    async def __aenter__(self) -> Self:
        await self.client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    def _ranked(self, method: str) -> list[Provider]:
        pool, now_ns = self.client.pool, time.monotonic_ns()
        serving = self.client.ranked(method)
        return sorted(serving, key=lambda p: (not p.connected, pool.ejection.is_out(p, now_ns)))

    async def sponsor(
        self,
        operation: dict[str, Any],
        context: dict[str, Any] | None = None,
        *,
        timeout_ms: int = 3_000,
    ) -> Sponsored:
        """Has `operation` paid for: stub, estimate, data; the next vendor where one refuses.

        The data is asked for once of each vendor and never repeated to the same one: a vendor that
        did not answer may have promised, and the next vendor's promise is for the same nonce, so at
        most one of them can ever be called upon.

        Args:
            operation: an ERC-4337 v0.7 user operation, unsigned, in JSON form.
            context: the vendor's context (ERC-7677), such as a sponsorship policy.
            timeout_ms: for each question.

        Raises:
            AllProvidersFailed: no vendor will pay.
        """
        tried: dict[str, str] = {}
        causes: list[tuple[str, Trouble]] = []
        for vendor in self._ranked("pm_getPaymasterStubData"):
            try:
                paid = await self._with(vendor, operation, context or {}, timeout_ms)
            except (RpcAnswerError, AllProvidersFailed, msgspec.ValidationError) as error:
                tried[vendor.name] = str(error)
                causes.append((vendor.name, Trouble(Fault.PROVIDER, str(error))))
                if not isinstance(error, AllProvidersFailed):
                    # A refusal costs success, hence rank.
                    refusal = Trouble(Fault.ANSWER, str(error))
                    vendor.erred(refusal.fault, refusal.message)
                    vendor.blame(refusal)
                continue
            return Sponsored(paid, vendor.name, tried)
        raise AllProvidersFailed("pm_getPaymasterData", causes)

    async def _with(
        self, vendor: Provider, operation: dict[str, Any], context: dict[str, Any], timeout_ms: int
    ) -> dict[str, Any]:
        asked = [operation, self.entry_point, hex(self.chain_id), context]
        stub = await self.client.ask(
            vendor, "pm_getPaymasterStubData", asked, timeout_ms=timeout_ms
        )
        known = msgspec.convert(stub, _StubAnswer)
        filled = operation | {k: v for k, v in stub.items() if k not in ("sponsor", "isFinal")}
        if "callGasLimit" not in operation:
            filled |= await self.client.request(
                "eth_estimateUserOperationGas", [filled, self.entry_point]
            )
        if known.isFinal:
            return filled
        asked = [filled, self.entry_point, hex(self.chain_id), context]
        promise: dict[str, Any] = await self.client.ask(
            vendor, "pm_getPaymasterData", asked, timeout_ms=timeout_ms
        )
        msgspec.convert(promise, _StubAnswer)
        return filled | promise

    async def send(self, operation: dict[str, Any]) -> str:
        """Hands a signed user operation to the best bundler, and to the next where that one fails.

        The account's nonce lets it land once, whoever has it; so only an honest refusal is final.

        Returns:
            The operation's hash.

        Raises:
            RpcAnswerError: a bundler refused it.
            AllProvidersFailed: no bundler could be asked.
        """
        causes: list[tuple[str, Trouble]] = []
        for bundler in self._ranked("eth_sendUserOperation"):
            try:
                number: str = await self.client.ask(
                    bundler, "eth_sendUserOperation", [operation, self.entry_point]
                )
            except AllProvidersFailed as error:
                causes += error.causes
            else:
                return number
        raise AllProvidersFailed("eth_sendUserOperation", causes)

    async def receipt(self, number: str, *, timeout_ms: int = 60_000) -> dict[str, Any]:
        """Waits for the receipt of a user operation.

        Raises:
            TimeoutError: it did not come in time; the operation may still land.
        """
        async with asyncio.timeout(timeout_ms / 1000):
            while True:
                found = await self.client.request(
                    "eth_getUserOperationReceipt", [number], fresh=True
                )
                if found is not None:
                    return dict(found)
                await asyncio.sleep(0.2)
