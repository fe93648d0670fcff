// Makes swaps with Uniswap's own SDKs and writes, as JSON, each calldata beside what was asked for.
// Deterministic: the result is kept as vectors.json and compared when the slow tests run.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Interface } = require("@ethersproject/abi");
const { CurrencyAmount, Ether, Percent, Token, TradeType } = require("@uniswap/sdk-core");
const v2 = require("@uniswap/v2-sdk");
const v3 = require("@uniswap/v3-sdk");
const v4 = require("@uniswap/v4-sdk");
const router = require("@uniswap/router-sdk");
const universal = require("@uniswap/universal-router-sdk");
const V2_ROUTER = new Interface(require("@uniswap/v2-periphery/build/IUniswapV2Router02.json").abi);

let state = 20211021n;
function random(bits) {
  let out = 0n;
  for (let i = 0; i < bits; i += 32) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
    out = (out << 32n) | (state >> 32n);
  }
  return out & ((1n << BigInt(bits)) - 1n);
}
const address = () => "0x" + random(160).toString(16).padStart(40, "0");
const lower = (text) => text.toLowerCase();

const ETHER = Ether.onChain(1);
const WETH = ETHER.wrapped;
const newToken = () => new Token(1, address(), 18);
const amountOf = (token, number) => CurrencyAmount.fromRawAmount(token, number.toString());
const SLIPPAGE = new Percent(1, 2); // exact halves and three halves, without rounding
const NO_SLIPPAGE = new Percent(0, 1);
const FEES = [v3.FeeAmount.LOW, v3.FeeAmount.MEDIUM, v3.FeeAmount.HIGH];

function path(hops, first, last) {
  const tokens = [];
  for (let i = 0; i <= hops; i++) tokens.push(newToken());
  if (first) tokens[0] = first;
  if (last) tokens[hops] = last;
  return tokens;
}
const poolsOf = (tokens) =>
  tokens.slice(1).map((token, i) => {
    const fee = FEES[Number(random(8)) % 3];
    return new v3.Pool(tokens[i], token, fee, v3.TickMath.getSqrtRatioAtTick(0), 1000000, 0, []);
  });
const v4PoolsOf = (tokens) =>
  tokens.slice(1).map((token, i) => {
    const none = "0x" + "0".repeat(40);
    const price = v3.TickMath.getSqrtRatioAtTick(0).toString();
    return new v4.Pool(tokens[i], token, 3000, 60, none, price, "1000000", 0, []);
  });
const pairsOf = (tokens) =>
  tokens.slice(1).map((token, i) => {
    const reserve = (of) => amountOf(of, 10n ** 24n + random(64));
    return new v2.Pair(reserve(tokens[i]), reserve(token));
  });
const names = (tokens) => tokens.map((t) => lower(t.isNative ? WETH.address : t.address));

const out = [];
function add(name, { calldata, value }, swaps) {
  out.push({ name, calldata: lower(calldata), value: BigInt(value).toString(), swaps });
}
// SLIPPAGE of one half: at least out / (1 + 1/2), at most in * (1 + 1/2), as the SDKs compute it.
const asked = (trade, slippage) => ({
  exact: trade.tradeType === TradeType.EXACT_INPUT ? "in" : "out",
  amount_in: trade.maximumAmountIn(slippage).quotient.toString(),
  amount_out: trade.minimumAmountOut(slippage).quotient.toString(),
});

// V2 router: each of the functions that its SDK knows
for (const [give, take] of [[false, false], [true, false], [false, true]]) {
  for (const exact of [TradeType.EXACT_INPUT, TradeType.EXACT_OUTPUT]) {
    for (const hops of [1, 2, 4]) {
      for (const feeOnTransfer of exact === TradeType.EXACT_INPUT ? [false, true] : [false]) {
        const tokens = path(hops, give && WETH, take && WETH);
        const from = give ? ETHER : tokens[0];
        const to = take ? ETHER : tokens[hops];
        const route = new v2.Route(pairsOf(tokens), from, to);
        const fixed = exact === TradeType.EXACT_INPUT ? from : to;
        const trade = new v2.Trade(route, amountOf(fixed, 10n ** 18n + random(48)), exact);
        const recipient = address();
        const deadline = Number(random(31));
        const { methodName, args, value } = v2.Router.swapCallParameters(trade, {
          allowedSlippage: SLIPPAGE,
          recipient,
          deadline,
          feeOnTransfer,
        });
        const calldata = V2_ROUTER.encodeFunctionData(methodName, args);
        add(`v2 ${methodName} ${hops}`, { calldata, value }, [
          {
            protocol: "uniswap-v2",
            ...asked(trade, SLIPPAGE),
            tokens: names(tokens),
            fees: [],
            recipient: lower(recipient),
            deadline_s: deadline,
            native_in: give,
            native_out: take,
            fee_on_transfer: feeOnTransfer,
          },
        ]);
      }
    }
  }
}

// V3 SwapRouter and SwapRouter02
async function v3Trades() {
  for (const exact of [TradeType.EXACT_INPUT, TradeType.EXACT_OUTPUT]) {
    for (const hops of [1, 2, 3, 7]) {
      const tokens = path(hops);
      const pools = poolsOf(tokens);
      const route = new v3.Route(pools, tokens[0], tokens[hops]);
      const trade = v3.Trade.createUncheckedTrade({
        route,
        inputAmount: amountOf(tokens[0], random(90)),
        outputAmount: amountOf(tokens[hops], random(90)),
        tradeType: exact,
      });
      const recipient = address();
      const deadline = Number(random(31));
      const expected = {
        protocol: "uniswap-v3",
        ...asked(trade, SLIPPAGE),
        tokens: names(tokens),
        fees: pools.map((pool) => pool.fee),
        recipient: lower(recipient),
        deadline_s: deadline,
      };
      const options = { slippageTolerance: SLIPPAGE, recipient, deadline };
      add(`v3 ${expected.exact} ${hops}`, v3.SwapRouter.swapCallParameters(trade, options), [
        expected,
      ]);
      const both = { slippageTolerance: SLIPPAGE, recipient, deadlineOrPreviousBlockhash: deadline };
      add(`v3 02 ${expected.exact} ${hops}`, router.SwapRouter.swapCallParameters(trade, both), [
        expected,
      ]);
    }
  }
}

// Universal Router: one trade split over V2, V3 and V4
function universalTrades() {
  for (const exact of [TradeType.EXACT_INPUT, TradeType.EXACT_OUTPUT]) {
    for (const hops of [1, 3]) {
      for (const parts of [["v2"], ["v3"], ["v4"], ["v2", "v3"], ["v3", "v3"], ["v2", "v3", "v4"]]) {
        const first = newToken();
        const last = newToken();
        const routes = { v2Routes: [], v3Routes: [], v4Routes: [] };
        const made = [];
        for (const kind of parts) {
          const tokens = path(hops, first, last);
          const inputAmount = amountOf(first, 10n ** 20n + random(64));
          const outputAmount = amountOf(last, 10n ** 20n + random(64));
          const both = { inputAmount, outputAmount };
          const amounts = {
            amount_in: inputAmount.quotient.toString(),
            amount_out: outputAmount.quotient.toString(),
          };
          if (kind === "v2") {
            const routev2 = new v2.Route(pairsOf(tokens), first, last);
            routes.v2Routes.push({ routev2, ...both });
            // the SDK works the other amount out from the reserves
            const fixed = exact === TradeType.EXACT_INPUT ? inputAmount : outputAmount;
            const known = new v2.Trade(routev2, fixed, exact);
            amounts.amount_in = known.inputAmount.quotient.toString();
            amounts.amount_out = known.outputAmount.quotient.toString();
            made.push({ protocol: "uniswap-v2", tokens: names(tokens), fees: [], ...amounts });
          } else if (kind === "v3") {
            const pools = poolsOf(tokens);
            routes.v3Routes.push({ routev3: new v3.Route(pools, first, last), ...both });
            const fees = pools.map((pool) => pool.fee);
            made.push({ protocol: "uniswap-v3", tokens: names(tokens), fees, ...amounts });
          } else {
            const pools = v4PoolsOf(tokens);
            routes.v4Routes.push({ routev4: new v4.Route(pools, first, last), ...both });
            const fees = pools.map((pool) => pool.fee);
            made.push({ protocol: "uniswap-v4", tokens: names(tokens), fees, ...amounts });
          }
        }
        const trade = new router.Trade({ ...routes, tradeType: exact });
        const deadline = Number(random(31));
        const { calldata, value } = universal.SwapRouter.swapCallParameters(trade, {
          slippageTolerance: NO_SLIPPAGE,
          recipient: address(),
          deadlineOrPreviousBlockhash: deadline,
        });
        const direction = exact === TradeType.EXACT_INPUT ? "in" : "out";
        // of more than two parts the SDK checks only the sum, by a sweep at the end
        if (direction === "in" && parts.length > 2) for (const swap of made) swap.amount_out = "0";
        add(
          `universal ${parts.join("+")} ${direction} ${hops}`,
          { calldata, value },
          made.map((swap) => ({ ...swap, exact: direction, deadline_s: deadline })),
        );
      }
    }
  }
}

await v3Trades();
universalTrades();
process.stdout.write("[\n" + out.map((entry) => JSON.stringify(entry)).join(",\n") + "\n]\n");
