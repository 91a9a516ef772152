"""What an hour of a device costs: rented at the newest catalogued price, or bought and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim import catalog, units
from sim.catalog import Machine
from sim.errors import RoofcastError, did_you_mean, sentence, shown

LIFE_YEARS = 4.0  # straight-line depreciation of servers; the hyperscalers' own accounts use 4 to 6 years
USD_PER_KWH = 0.15  # assumption: between US commercial (about 0.13) and European business tariffs (about 0.20)
RENTED_FAMILIES = ("datacenter", "amd", "tpu")
PAY = ("rent", "buy")


@dataclass(frozen=True)
class Rate:
    """USD per second of one device, USD per joule on top, where both come from, and which of PAY (or neither)."""

    usd_per_device_s: float
    usd_per_joule: float
    note: str
    paid: str = ""


def device_rate(machine: Machine, pay: str | None = None) -> Rate:
    """What a device costs when rented ("rent"), or bought and run ("buy"); NaN where no such price is known.

    pay = None: rent for data-center parts of which one is known, purchase for all else.
    """
    if pay not in (None, *PAY):
        hint = did_you_mean(str(pay), PAY) or "take rent or buy"
        raise RoofcastError(sentence(f"expected rent or buy, found {shown(pay)}", "pay", hint))
    device = machine.device
    quote = catalog.price_per_hour(device.id)
    if pay == "rent" or (pay is None and quote and device.family in RENTED_FAMILIES):
        if quote is None:
            return Rate(float("nan"), 0.0, f"price: no rent is known for {device.name}; give --price, or --pay buy")
        spread = f"{quote.low:.3g} to {quote.high:.3g}, {quote.n} offers, {quote.date}"
        note = f"price: rent of {device.name} at ${quote.median:.3g} per device-hour ({spread}); electricity included"
        return Rate(quote.median / units.S_PER_HOUR, 0.0, note, "rent")
    price = purchase_usd(machine)
    if price is None:
        other = ", or --pay rent" if quote else ""
        note = f"price: no purchase price is known for {device.name}; give --price in USD per device-hour{other}"
        return Rate(float("nan"), 0.0, note)
    hourly = price / (LIFE_YEARS * units.HOURS_PER_YEAR)
    dated = f" ({device.price_date})" if device.price_date else ""
    note = (
        f"price: {device.name} bought at ${price:,.0f}{dated} over {LIFE_YEARS:g} years in constant use, "
        f"and electricity at ${USD_PER_KWH:g} per kWh; the computer around a card is not counted"
    )
    return Rate(hourly / units.S_PER_HOUR, USD_PER_KWH / units.J_PER_KWH, note, "buy")


def mixed_note(paid: Mapping[str, str]) -> str | None:
    """A note where some devices (name -> which of PAY) are rented and others bought: their costs are not alike."""
    rented, bought = ([name for name, way in paid.items() if way == kind] for kind in PAY)
    if not rented or not bought:
        return None
    told = f"rent of {_few(rented)}, purchase over {LIFE_YEARS:g} years and electricity of {_few(bought)}"
    return f'price: costs compared here are not alike: {told}; pay = "rent" or "buy" compares one of them'


def _few(names: Sequence[str]) -> str:
    """`A, B and 3 others`."""
    rest = len(names) - 2
    if rest <= 0:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {rest} other{'s' if rest > 1 else ''}"


def purchase_usd(machine: Machine) -> float | None:
    """Purchase price of one device, USD: its own, or its share of the system's."""
    if machine.device.price_usd is not None:
        return machine.device.price_usd
    if machine.system and machine.system.price_usd:
        return machine.system.price_usd / machine.system.n_devices
    return None
