"""The pure part, without a word about the gateway: which market a country belongs to."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    header: str
    """The header that names the country, in lower case."""
    markets: dict[str, str]
    """The market of each country."""
    default: str
    """The market of all other countries."""


def read(text: str) -> Config:
    """Checks the configuration; raises ValueError with what is wrong."""
    given = json.loads(text)
    unknown = given.keys() - {"header", "markets", "default"}
    if unknown:
        raise ValueError(f"unknown key `{min(unknown)}`")
    header, default = given.get("header", "x-country"), given.get("default", "world")
    if not isinstance(header, str) or not header:
        raise ValueError("`header` is the name of a header")
    if not isinstance(default, str) or not default:
        raise ValueError("`default` is the name of a market")
    return Config(header.lower(), by_country(given.get("markets")), default)


def by_country(markets: object) -> dict[str, str]:
    if not isinstance(markets, dict) or not markets:
        raise ValueError("`markets` are names with lists of countries")
    found: dict[str, str] = {}
    for market, countries in markets.items():
        if not isinstance(countries, list):
            raise ValueError(f"`markets.{market}` is a list of countries")
        for country in countries:
            if not isinstance(country, str) or len(country) != 2:
                raise ValueError(f"`markets.{market}` holds {country!r}, not two letters (YAML reads NO as false: quote it)")
            if country.upper() in found:
                raise ValueError(f"{country} is in two markets")
            found[country.upper()] = market
    return found


def market_of(config: Config, country: str | None) -> str:
    """The market of a country, whatever its case; the default for none or another."""
    return config.markets.get((country or "").strip().upper(), config.default)
