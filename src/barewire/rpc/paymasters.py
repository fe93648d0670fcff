"""Paymasters and bundlers: providers of another kind, ranked and failed over by the same rules.

A paymaster sponsors the gas of an ERC-4337 user operation. ERC-7677 asks it twice: for a stub with
which gas is estimated (repeatable, so any vendor may be asked and asked again), and for the real
data (a promise to pay, so it is asked for once, of the one whose stub was used). What differs from
nodes is the rank: the fee and the share of promises kept count beside latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Self

from barewire.errors import BarewireError, ConfigError
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble, from_error
from barewire.rpc.provider import Provider
from barewire.untrusted import bytes_of, printable, quantity_of

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


_RECEIPT_S = 0.2
_PAYS = ("paymaster", "paymasterData", "paymasterAndData")
"""Who pays, as ERC-7677 says it for EntryPoint 0.7 and later, and for 0.6."""
_LIMITS = ("paymasterVerificationGasLimit", "paymasterPostOpGasLimit")
_GAS = ("callGasLimit", "verificationGasLimit", "preVerificationGas")

# ERC-7769: what holds for any bundler. Throttled (-32504), short of stake (-32505) and an unknown
# aggregator (-32506) are one bundler's own opinion.
_FINAL = (-32500, -32501, -32502, -32503, -32507, -32521, -32602)


def _is_final(error: RpcAnswerError) -> bool:
    """Whether asking another bundler changes nothing."""
    if error.code in _FINAL:
        return True
    if isinstance(error.code, int) and -32599 <= error.code <= -32500:
        return False
    return from_error(error.error).fault is Fault.ANSWER


def _part(answer: Any, what: str, names: tuple[str, ...]) -> dict[str, str]:
    """Those of `names` that `answer` has; null is as good as missing, all else is left out.

    Raises:
        BarewireError: it is no object, or one of them is no hexadecimal text.
    """
    if not isinstance(answer, dict):
        raise BarewireError(f"{what} is {printable(answer, 40)}, no object")
    part = {name: answer[name] for name in names if answer.get(name) is not None}
    for name, value in part.items():
        try:
            bytes_of(value) if name in _PAYS else quantity_of(value, 256)
        except ValueError:
            raise BarewireError(f"{what} has {name} = {printable(value, 40)}") from None
    return part


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
            except AllProvidersFailed as error:  # counted by the pool
                why = str(error)
            except BarewireError as error:
                why = str(error)
                if not isinstance(error, RpcAnswerError) or _is_final(error):
                    # A refusal costs success, hence rank.
                    refusal = Trouble(Fault.ANSWER, why)
                    vendor.erred(refusal.fault, refusal.message)
                    vendor.blame(refusal)
            else:
                return Sponsored(paid, vendor.name, tried)
            tried[vendor.name] = why
            causes.append((vendor.name, Trouble(Fault.PROVIDER, why)))
        raise AllProvidersFailed("pm_getPaymasterData", causes)

    async def _with(
        self, vendor: Provider, operation: dict[str, Any], context: dict[str, Any], timeout_ms: int
    ) -> dict[str, Any]:
        asked = [operation, self.entry_point, hex(self.chain_id), context]
        answer = await self.client.ask(
            vendor, "pm_getPaymasterStubData", asked, timeout_ms=timeout_ms
        )
        stub = _part(answer, "the stub", (*_PAYS, *_LIMITS))
        filled = operation | stub
        if "callGasLimit" not in operation:
            filled |= await self._estimate(filled, timeout_ms)
            filled |= stub  # ERC-7677: the limits that the paymaster gives are the ones to use
        if answer.get("isFinal") is True:
            return _paid_for(filled, stub, "the stub")
        asked = [filled, self.entry_point, hex(self.chain_id), context]
        promise = await self.client.ask(vendor, "pm_getPaymasterData", asked, timeout_ms=timeout_ms)
        pays = _part(promise, "the paymaster's data", _PAYS)
        limits = _part(promise, "the paymaster's data", _LIMITS)
        return _paid_for(limits | filled | pays, pays, "the paymaster's data")

    async def _estimate(self, operation: dict[str, Any], timeout_ms: int) -> dict[str, str]:
        """Gas limits by the best bundler, or the next where that one has none to give.

        Raises:
            RpcAnswerError: the operation fails, by a bundler's word.
            AllProvidersFailed: nobody estimates.
        """
        method = "eth_estimateUserOperationGas"
        causes: list[tuple[str, Trouble]] = []
        for bundler in self._ranked(method):
            try:
                answer = await self.client.ask(
                    bundler, method, [operation, self.entry_point], timeout_ms=timeout_ms
                )
                gas = _part(answer, "the estimate", (*_GAS, *_LIMITS))
                missing = [name for name in _GAS if name not in gas]
                if not missing:
                    return gas
                why = f"the estimate has no {missing[0]}"
            except RpcAnswerError as error:
                if _is_final(error):
                    raise
                why = str(error)
            except BarewireError as error:
                why = str(error)
            causes.append((bundler.name, Trouble(Fault.PROVIDER, why)))
        raise AllProvidersFailed(method, causes)

    async def send(self, operation: dict[str, Any]) -> str:
        """Hands a signed user operation to the best bundler, and to the next where that one fails.

        The account's nonce lets it land once, whoever has it; so only what holds for every bundler
        is final (ERC-7769: the operation itself is at fault).

        Returns:
            The operation's hash.

        Raises:
            RpcAnswerError: it is refused for good, or by all that could be asked.
            AllProvidersFailed: no bundler could be asked.
        """
        causes: list[tuple[str, Trouble]] = []
        refused: RpcAnswerError | None = None
        for bundler in self._ranked("eth_sendUserOperation"):
            try:
                number = await self.client.ask(
                    bundler, "eth_sendUserOperation", [operation, self.entry_point]
                )
                return "0x" + bytes_of(number, 32).hex()
            except RpcAnswerError as error:
                if _is_final(error):
                    raise
                refused = refused or error
            except AllProvidersFailed as error:
                causes += error.causes
            except ValueError:
                why = f"took it, and gave {printable(number, 40)} for its hash"
                causes.append((bundler.name, Trouble(Fault.PROVIDER, why)))
        raise refused or AllProvidersFailed("eth_sendUserOperation", causes)

    async def receipt(self, number: str, *, timeout_ms: int = 60_000) -> dict[str, Any]:
        """Waits for the receipt of a user operation; the bundlers are asked in turn.

        Raises:
            TimeoutError: it did not come in time; the operation may still land.
        """
        method = "eth_getUserOperationReceipt"
        async with asyncio.timeout(timeout_ms / 1000):
            while True:
                for bundler in self._ranked(method):
                    # What one bundler does not know, or cannot say now, another or it later may.
                    with contextlib.suppress(RpcAnswerError, AllProvidersFailed):
                        found = await self.client.ask(bundler, method, [number], timeout_ms=2_000)
                        if isinstance(found, dict):
                            return found
                    await asyncio.sleep(_RECEIPT_S)
                await asyncio.sleep(_RECEIPT_S)


def _paid_for(operation: dict[str, Any], pays: dict[str, str], what: str) -> dict[str, Any]:
    """`operation`, if somebody pays for it.

    Raises:
        BarewireError: nobody does: unsigned it would be paid by the account itself.
    """
    if len(pays.get("paymaster", "") + pays.get("paymasterAndData", "")) <= len("0x"):
        raise BarewireError(f"{what} names no paymaster")
    return operation
