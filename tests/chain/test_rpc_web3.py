"""web3.py's own tests over BarewireProvider: what fails there fails with web3.py's own, too.

anvil mines at once and knows no signing methods, so some of the modules' tests cannot pass whatever
is underneath. Each module set is run over web3.py's provider and over ours, in processes of their
own, and the outcomes are compared test by test.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from web3 import AsyncWeb3, Web3
from web3.middleware import ExtraDataToPOAMiddleware

from barewire.rpc.web3_provider import BarewireProvider, BarewireSyncProvider
from tests.chain.anvil import Anvil, npm_packages
from tests.chain.fault_proxy import FaultProxy

# They want a transaction still unmined, and race with a node that mines at once.
RACES = ("unmined", "replace_transaction", "modify_transaction")
ROOT = Path(__file__).resolve().parents[2]


def outcomes(over: str, folder: Path, which: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "-o", "filterwarnings=default", "-q", "--tb=no"]
    command += ["--timeout", "20", f"--junit-xml={folder / over}.xml"]
    command += ["tests/chain/web3_modules.py", "-k", which]
    env = os.environ | {"WEB3_OVER": over}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def read(over: str, folder: Path) -> tuple[set[str], set[str]]:
    """Names of the tests that passed, and of those that did not."""
    good, bad = set(), set()
    for case in ET.parse(folder / f"{over}.xml").iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            bad.add(name)
        elif case.find("skipped") is None:
            good.add(name)
    return good, bad


@pytest.mark.parametrize(
    ("way", "which", "least"),
    [
        pytest.param("http", "", 170, marks=pytest.mark.slow),
        pytest.param("ws", "", 170, marks=pytest.mark.slow),
        pytest.param("ws", "eth_get", 30),
    ],
)
@pytest.mark.timeout(300)
def test_web3s_own_modules(way, which, least, tmp_path):
    npm_packages()
    for run in [outcomes(over, tmp_path, which) for over in (f"web3-{way}", f"barewire-{way}")]:
        run.wait(250)
    theirs_good, theirs_bad = read(f"web3-{way}", tmp_path)
    ours_good, ours_bad = read(f"barewire-{way}", tmp_path)
    print(f"over web3.py's provider {len(theirs_good)} pass and {len(theirs_bad)} fail; over")
    print(f"BarewireProvider {len(ours_good)} pass and {len(ours_bad)} fail:")
    for name in sorted(ours_bad):
        print(f"  {name}  {'as with web3.py' if name in theirs_bad else 'ONLY OURS'}")
    assert len(ours_good) > least
    only_ours = {n for n in ours_bad - theirs_bad if not any(race in n for race in RACES)}
    assert not only_ours


@pytest.fixture(scope="module")
def node():
    with Anvil() as running:
        yield running


@pytest.mark.asyncio
async def test_one_line_and_a_provider_dies(node):
    async with FaultProxy(node.port) as one, FaultProxy(node.port) as other:
        w3 = await AsyncWeb3(BarewireProvider([one.http, other.http]))
        me = (await w3.eth.accounts)[0]
        balance = await w3.eth.get_balance(me)
        for proxy in (one, other):
            await proxy.set("reset")
            assert await w3.eth.get_balance(me) == balance
            await proxy.set("ok")
            await asyncio.sleep(0.3)
        await w3.provider.disconnect()


@pytest.mark.asyncio
async def test_batches_middleware_and_subscriptions(node):
    async with AsyncWeb3(BarewireProvider([node.ws])) as w3:
        w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        me = (await w3.eth.accounts)[0]
        async with w3.batch_requests() as batch:
            batch.add(w3.eth.get_block(0))
            batch.add(w3.eth.get_balance(me))
            batch.add(w3.eth.get_transaction_count(me))
            block, balance, count = await batch.async_execute()
        assert block["number"] == 0
        assert balance > 10**18
        assert count >= 0
        number = await w3.eth.subscribe("newHeads")
        node.rpc("evm_mine")
        async for message in w3.socket.process_subscriptions():
            assert message["subscription"] == number
            assert message["result"]["number"] == int(node.rpc("eth_blockNumber"), 16)
            break
        assert await w3.eth.unsubscribe(number)


def test_the_blocking_provider(node):
    provider = BarewireSyncProvider([node.http, node.http])
    w3 = Web3(provider)
    assert w3.is_connected()
    me = w3.eth.accounts[0]
    done = w3.eth.send_transaction({"from": me, "to": me, "value": 1})
    assert w3.eth.wait_for_transaction_receipt(done)["status"] == 1
    with w3.batch_requests() as batch:
        batch.add(w3.eth.get_balance(me))
        batch.add(w3.eth.get_block("latest"))
        balance, block = batch.execute()
    assert balance > 0
    assert block["number"] > 0
    for _ in range(20):
        w3.eth.get_block_number()
    provider.close()
