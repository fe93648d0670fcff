"""Where routers lie whose calldata looks like another's, by what they make of it.

From the routers' own repositories: Uniswap/universal-router, deploy-addresses/*.json (August 2026;
2.1.2 as Uniswap's documentation lists it), and pancakeswap/infinity-universal-router,
deploy-addresses/*.json. An address that two chains give to different versions is in no list.
"""

from __future__ import annotations

__all__ = ["PANCAKE_INFINITY", "UNIVERSAL_ROUTER_1_2", "UNIVERSAL_ROUTER_2_1"]

UNIVERSAL_ROUTER_1_2 = (
    # version 1
    "0xEf1c6E67703c7BD7107eed8303Fbe6EC2554BF6B",  # mainnet
    "0x4C60051384bd2d3C01bfc845Cf5F4b44bcbE9de5",  # Arbitrum, Polygon
    "0x5Dc88340E1c5c6366864Ee415d6034cadd1A9897",  # BNB chain
    "0xC73d61d192FB994157168Fb56730FdEc64C9Cb8F",  # Celo
    "0xb555edF5dcF85f42cEeF1f3630a52A108E55A654",  # Optimism
    # version 1.2
    "0x3fC91A3afd70395Cd496C647d5a6CC9D4B2b7FAD",  # mainnet, Base, Sepolia
    "0xeC8B0F7Ffe3ae75d7FfAb09429e3675bb63503e4",  # Arbitrum, Base, BNB chain, Optimism
    "0x5E325eDA8064b456f4781070C0738d849c824258",  # Arbitrum
    "0x4Dae2f939ACf50408e13d58534Ff8c2776d45265",  # Avalanche, BNB chain
    "0x82635AF6146972cD6601161c4472ffe97237D292",  # Avalanche
    "0x643770E279d5D0733F21d6DC03A8efbABf3255B4",  # Blast, Celo, Polygon
    "0xCb1355ff08Ab38bBCE60111F1bb2B784bE25D7e8",  # Optimism
    "0xec7BE89e9d109e7e3Fec59c222CF297125FEFda2",  # Polygon
    # version 2
    "0x66a9893cC07D91D95644AEDD05D03f95e1dBA8Af",  # mainnet
    "0xA51afAFe0263b40EdaEf0Df8781eA9aa03E381a3",  # Arbitrum
    "0x6fF5693b99212Da76ad316178A184AB56D299b43",  # Base
    "0xeAbBcB3E8E415306207ef514f660A3F820025BE3",  # Blast
    "0x1906c1d672b88cD1B9aC7593301cA990F94Eae07",  # BNB chain
    "0x851116D9223fabED8E56C0E6b8Ad0c31d98B3507",  # Optimism
    "0x1095692A6237d83C6a72F3F5eFEdb9A670C49223",  # Polygon
    "0xEf740bf23aCaE26f6492B10de645D6B98dC8Eaf3",  # Unichain
    "0x8ac7bEE993bb44dAb564Ea4bc9EA67Bf9Eb5e743",  # World Chain
    "0x3315ef7cA28dB74aBADC6c44570efDF06b04B020",  # Zora
)
"""Uniswap's Universal Router up to 2.0: six bits of a command byte name the command."""

UNIVERSAL_ROUTER_2_1 = (
    "0x4C82D1fBFe28C977cBB58D8C7FF8FCF9F70a2cCA",  # mainnet, 2.1.1
    "0x23617e59A5925b2A4Bf75d73ff6711cD0b29De85",  # mainnet, 2.1.2
    "0x8B844f885672f333Bc0042cB669255f93a4C1E6b",  # Arbitrum, BNB chain, Optimism and others
    "0xFdf682F51FE81Aa4898F0AE2163d8A55c127fbC7",  # Base, Monad, Unichain, Zora
    "0x7DfD4F31be6814D2906BDE155c3e1B146EAc1468",  # Sepolia
)
"""Versions 2.1.1 and 2.1.2: seven bits, and least prices per hop among a V4 swap's arguments."""

PANCAKE_INFINITY = ("0xd9C500DfF816a1Da21A48A732d3498Bf09dc9AEB",)  # BNB chain, Base
"""PancakeSwap's router of version Infinity."""
