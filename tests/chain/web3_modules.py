"""web3.py's own test modules, over the provider that WEB3_OVER names; run by test_rpc_web3.py.

``barewire-http`` and ``barewire-ws`` put BarewireProvider under them, ``web3-http`` and ``web3-ws``
web3.py's own providers. The modules ship in web3.py's package; the fixtures are ours.
"""

from __future__ import annotations

import os
import threading

import pytest
import pytest_asyncio
from eth_utils import to_bytes
from web3 import AsyncWeb3, HTTPProvider, Web3
from web3._utils.contract_sources.contract_data.emitter_contract import EMITTER_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.math_contract import MATH_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.offchain_lookup import OFFCHAIN_LOOKUP_DATA
from web3._utils.contract_sources.contract_data.panic_errors_contract import (
    PANIC_ERRORS_CONTRACT_DATA,
)
from web3._utils.contract_sources.contract_data.revert_contract import REVERT_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.storage_contract import STORAGE_CONTRACT_DATA
from web3._utils.module_testing.eth_module import AsyncEthModuleTest
from web3._utils.module_testing.net_module import AsyncNetModuleTest
from web3._utils.module_testing.persistent_connection_provider import (
    PersistentConnectionProviderTest,
)
from web3._utils.module_testing.utils import RequestMocker
from web3._utils.module_testing.web3_module import AsyncWeb3ModuleTest
from web3.providers import AsyncHTTPProvider, WebSocketProvider

from barewire.rpc.web3_provider import BarewireProvider, BarewireSyncProvider
from tests.chain.anvil import Anvil

OVER = os.environ.get("WEB3_OVER", "barewire-http")
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first


@pytest.fixture(scope="session")
def node():
    with Anvil("--chain-id", "131277322940537") as running:  # which the modules ask for
        yield running


@pytest.fixture(scope="session")
def blocking(node):
    w3 = Web3(HTTPProvider(node.http))
    w3.eth.default_account = w3.eth.accounts[0]
    return w3


def deployed(w3, data) -> str:
    done = w3.eth.contract(abi=data["abi"], bytecode=data["bytecode"]).constructor().transact()
    return w3.eth.wait_for_transaction_receipt(done)["contractAddress"]


@pytest.fixture(scope="session")
def addresses(blocking):
    every = {
        "emitter": EMITTER_CONTRACT_DATA,
        "math": MATH_CONTRACT_DATA,
        "offchain": OFFCHAIN_LOOKUP_DATA,
        "panic": PANIC_ERRORS_CONTRACT_DATA,
        "revert": REVERT_CONTRACT_DATA,
        "storage": STORAGE_CONTRACT_DATA,
    }
    return {name: (deployed(blocking, data), data["abi"]) for name, data in every.items()}


@pytest_asyncio.fixture
async def async_w3(node):
    if OVER == "web3-http":
        provider = AsyncHTTPProvider(node.http)
        yield AsyncWeb3(provider)
        await provider.disconnect()
        return
    if OVER == "web3-ws":
        provider = WebSocketProvider(node.ws)
    else:
        provider = BarewireProvider([node.http if OVER == "barewire-http" else node.ws])
    async with AsyncWeb3(provider) as w3:
        yield w3


@pytest.fixture
def w3(node):
    if OVER.startswith("web3"):
        yield Web3(HTTPProvider(node.http))
        return
    provider = BarewireSyncProvider([node.http])
    yield Web3(provider)
    provider.close()


def contract(name: str):
    @pytest.fixture
    def made(async_w3, addresses):
        address, abi = addresses[name]
        return async_w3.eth.contract(address=address, abi=abi)

    return made


async_emitter_contract = contract("emitter")
async_math_contract = contract("math")
async_offchain_lookup_contract = contract("offchain")
async_panic_errors_contract = contract("panic")
async_revert_contract = contract("revert")
async_storage_contract = contract("storage")


@pytest.fixture
def async_emitter_contract_address(addresses):
    return addresses["emitter"][0]


@pytest.fixture
def async_math_contract_address(addresses):
    return addresses["math"][0]


@pytest.fixture
def keyfile_account_pkey():
    return KEY


@pytest.fixture
def async_keyfile_account_address(blocking):
    return blocking.eth.default_account


@pytest.fixture(params=[str, to_bytes], ids=["text", "bytes"])
def async_keyfile_account_address_dual_type(request, blocking):
    address = blocking.eth.default_account
    return address if request.param is str else to_bytes(hexstr=address)


def mined(w3, number):
    """`number`, once it is in a block: a busy machine takes its time."""
    w3.eth.wait_for_transaction_receipt(number)
    return number


@pytest.fixture(scope="session")
def mined_txn_hash(blocking):
    me = blocking.eth.default_account
    return mined(blocking, blocking.eth.send_transaction({"from": me, "to": me, "value": 1}))


@pytest.fixture(scope="session")
def async_block_with_txn(blocking, mined_txn_hash):
    return blocking.eth.get_block(blocking.eth.get_transaction(mined_txn_hash)["blockNumber"])


@pytest.fixture(scope="session")
def async_empty_block(blocking):
    blocking.provider.make_request("evm_mine", [])
    return blocking.eth.get_block("latest")


@pytest.fixture(scope="session")
def txn_hash_with_log(blocking, addresses):
    address, abi = addresses["emitter"]
    emitter = blocking.eth.contract(address=address, abi=abi)
    return mined(blocking, emitter.functions.logDouble(which=9, arg0=12345, arg1=54321).transact())


@pytest.fixture(scope="session")
def async_block_with_txn_with_log(blocking, txn_hash_with_log):
    return blocking.eth.get_block(blocking.eth.get_transaction(txn_hash_with_log)["blockNumber"])


@pytest.fixture
def async_skip_if_testrpc():
    return lambda w3: None


@pytest.fixture
def request_mocker():
    return RequestMocker


class TestEth(AsyncEthModuleTest):
    pass


class TestNet(AsyncNetModuleTest):
    pass


class TestWeb3(AsyncWeb3ModuleTest):
    async def _check_web3_client_version(self, client_version):
        assert client_version.startswith("anvil/")

    def _check_web3_clientVersion(self, client_version):
        assert client_version.startswith("anvil/")


if OVER.endswith("ws"):

    class TestSubscriptions(PersistentConnectionProviderTest):
        @pytest.fixture(autouse=True)
        def ticking(self, node):
            """Blocks come by themselves, as these tests expect of a chain."""
            stopped = threading.Event()

            def tick() -> None:
                w3 = Web3(HTTPProvider(node.http))
                while not stopped.wait(0.25):
                    w3.provider.make_request("evm_mine", [])

            ticker = threading.Thread(target=tick)
            ticker.start()
            yield
            stopped.set()
            ticker.join()
