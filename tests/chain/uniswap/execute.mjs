// Makes calldata with Uniswap's own SDKs for swaps that are then executed: JSON requests on standard
// input, {calldata, value} for each on standard output. A request:
//   router     "v2", "v3", "v3-02" or "universal"
//   exact      "in" or "out"
//   amount     of the exact side; `guess` of the other, from which the SDK makes the limit
//   routes     [{kind: "v2" or "v3", tokens: [address], fees: [number]}]; several only of "universal"
//   give, take whether the first or the last token is ether (then it is WETH in `tokens`)
//   recipient
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const { Interface } = require("@ethersproject/abi");
const { CurrencyAmount, Ether, Percent, Token, TradeType } = require("@uniswap/sdk-core");
const v2 = require("@uniswap/v2-sdk");
const v3 = require("@uniswap/v3-sdk");
const router = require("@uniswap/router-sdk");
const universal = require("@uniswap/universal-router-sdk");
const V2_ROUTER = new Interface(require("@uniswap/v2-periphery/build/IUniswapV2Router02.json").abi);

const ETHER = Ether.onChain(1);
const SLIPPAGE = new Percent(1, 2);
const DEADLINE = 2 ** 33;
const RESERVE = (10n ** 21n).toString();
const amountOf = (currency, number) => CurrencyAmount.fromRawAmount(currency, number);

function routeOf({ kind, tokens, fees }, give, take) {
  const known = tokens.map((address) => new Token(1, address, 18));
  const from = give ? ETHER : known[0];
  const to = take ? ETHER : known[known.length - 1];
  const pools = known.slice(1).map((token, i) => {
    if (kind === "v2") return new v2.Pair(amountOf(known[i], RESERVE), amountOf(token, RESERVE));
    const price = v3.TickMath.getSqrtRatioAtTick(0);
    return new v3.Pool(known[i], token, fees[i], price, RESERVE, 0, []);
  });
  return kind === "v2" ? new v2.Route(pools, from, to) : new v3.Route(pools, from, to);
}

function make({ router: which, exact, amount, guess, routes, give, take, recipient }) {
  const tradeType = exact === "in" ? TradeType.EXACT_INPUT : TradeType.EXACT_OUTPUT;
  const made = routes.map((route) => routeOf(route, give, take));
  const [input, output] = [made[0].input, made[0].output];
  const both = {
    inputAmount: amountOf(input, exact === "in" ? amount : guess),
    outputAmount: amountOf(output, exact === "in" ? guess : amount),
  };
  const fixed = exact === "in" ? both.inputAmount : both.outputAmount;
  if (which === "v2") {
    const { methodName, args, value } = v2.Router.swapCallParameters(
      new v2.Trade(made[0], fixed, tradeType),
      { allowedSlippage: SLIPPAGE, recipient, deadline: DEADLINE },
    );
    return { calldata: V2_ROUTER.encodeFunctionData(methodName, args), value };
  }
  if (which !== "universal") {
    const trade = v3.Trade.createUncheckedTrade({ route: made[0], ...both, tradeType });
    const options = { slippageTolerance: SLIPPAGE, recipient };
    return which === "v3"
      ? v3.SwapRouter.swapCallParameters(trade, { ...options, deadline: DEADLINE })
      : router.SwapRouter.swapCallParameters(trade, {
          ...options,
          deadlineOrPreviousBlockhash: DEADLINE,
        });
  }
  const of = { v2Routes: [], v3Routes: [], v4Routes: [] };
  routes.forEach(({ kind }, i) => of[kind + "Routes"].push({ ["route" + kind]: made[i], ...both }));
  return universal.SwapRouter.swapCallParameters(new router.Trade({ ...of, tradeType }), {
    slippageTolerance: SLIPPAGE,
    recipient,
    deadlineOrPreviousBlockhash: DEADLINE,
    useRouterBalance: !give, // the test has sent the tokens there: no Permit2
  });
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(make)));
