"""Names of countries and continents that the policy knows, to ask the right worker first.

Nothing here is an answer: a name that is missing is still found, by asking one worker after the
other. What the list is needed for is to read "Trinidad and Tobago and Chad" as two countries, and
names in lower case as names.
"""

import unicodedata
from typing import Final


def fold(word: str) -> str:
    """The form in which words are compared: no accents, no case, no full stops."""
    decomposed = unicodedata.normalize("NFKD", word)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    return plain.replace("’", "'").replace(".", "")


_COUNTRIES: Final = """
Afghanistan, Albania, Algeria, American Samoa, Andorra, Angola, Anguilla, Antarctica, Antigua and
Barbuda, Argentina, Armenia, Aruba, Australia, Austria, Azerbaijan, Bahamas, Bahrain, Bangladesh,
Barbados, Belarus, Belgium, Belize, Benin, Bermuda, Bhutan, Bolivia, Bosnia and Herzegovina,
Botswana, Brazil, Britain, British Virgin Islands, Brunei, Bulgaria, Burkina Faso, Burma, Burundi,
Cabo Verde, Cambodia, Cameroon, Canada, Cape Verde, Cayman Islands, Central African Republic,
Chad, Chile, China, Colombia, Comoros, Cook Islands, Costa Rica, Cote d'Ivoire, Croatia, Cuba,
Curacao, Cyprus, Czech Republic, Czechia, Democratic Republic of Congo, Democratic Republic of the
Congo, Denmark, Djibouti, Dominica, Dominican Republic, DR Congo, DRC, East Timor, Ecuador, Egypt,
El Salvador, Equatorial Guinea, Eritrea, Estonia, Eswatini, Ethiopia, Falkland Islands, Faroe
Islands, Fiji, Finland, France, French Guiana, French Polynesia, Gabon, Gambia, Georgia, Germany,
Ghana, Gibraltar, Great Britain, Greece, Greenland, Grenada, Guadeloupe, Guam, Guatemala,
Guernsey, Guinea, Guinea-Bissau, Guyana, Haiti, Holland, Honduras, Hong Kong, Hungary, Iceland,
India, Indonesia, Iran, Iraq, Ireland, Isle of Man, Israel, Italy, Ivory Coast, Jamaica, Japan,
Jersey, Jordan, Kazakhstan, Kenya, Kiribati, Kosovo, Kuwait, Kyrgyzstan, Laos, Latvia, Lebanon,
Lesotho, Liberia, Libya, Liechtenstein, Lithuania, Luxembourg, Macau, Macedonia, Madagascar,
Malawi, Malaysia, Maldives, Mali, Malta, Marshall Islands, Martinique, Mauritania, Mauritius,
Mayotte, Mexico, Micronesia, Moldova, Monaco, Mongolia, Montenegro, Montserrat, Morocco,
Mozambique, Myanmar, Namibia, Nauru, Nepal, Netherlands, New Caledonia, New Zealand, Nicaragua,
Niger, Nigeria, Niue, North Korea, North Macedonia, Northern Mariana Islands, Norway, Oman,
Pakistan, Palau, Palestine, Panama, Papua New Guinea, Paraguay, People's Republic of China, Peru,
Philippines, Poland, Portugal, Puerto Rico, Qatar, Republic of Congo, Republic of Ireland,
Republic of Korea, Republic of the Congo, Reunion, Romania, Russia, Russian Federation, Rwanda,
Saint Kitts and Nevis, Saint Lucia, Saint Martin, Saint Vincent and the Grenadines, Samoa, San
Marino, Sao Tome and Principe, Saudi Arabia, Senegal, Serbia, Seychelles, Sierra Leone, Singapore,
Sint Maarten, Slovakia, Slovenia, Solomon Islands, Somalia, South Africa, South Korea, South
Sudan, Spain, Sri Lanka, St Kitts and Nevis, St Lucia, St Vincent and the Grenadines, Sudan,
Suriname, Swaziland, Sweden, Switzerland, Syria, Taiwan, Tajikistan, Tanzania, Thailand, Timor
Leste, Togo, Tokelau, Tonga, Trinidad and Tobago, Tunisia, Turkey, Turkiye, Turkmenistan, Turks
and Caicos Islands, Tuvalu, UAE, Uganda, UK, Ukraine, United Arab Emirates, United Kingdom, United
States, United States of America, Uruguay, USA, Uzbekistan, Vanuatu, Vatican, Vatican City,
Venezuela, Vietnam, Wallis and Futuna, Western Sahara, Yemen, Zambia, Zimbabwe
"""

COUNTRIES: Final = {
    tuple(fold(name).replace("-", " ").split()): name
    for name in (" ".join(name.split()) for name in _COUNTRIES.split(","))
}
"""Folded words of a country's name, and the name as it is asked for."""

ARTICLED: Final = frozenset(
    fold(name)
    for name in (
        "Bahamas",
        "British Virgin Islands",
        "Cayman Islands",
        "Central African Republic",
        "Comoros",
        "Cook Islands",
        "Czech Republic",
        "Democratic Republic of the Congo",
        "Dominican Republic",
        "Falkland Islands",
        "Faroe Islands",
        "Gambia",
        "Isle of Man",
        "Maldives",
        "Marshall Islands",
        "Netherlands",
        "Northern Mariana Islands",
        "Philippines",
        "Republic of the Congo",
        "Seychelles",
        "Solomon Islands",
        "Turks and Caicos Islands",
        "United Arab Emirates",
        "United Kingdom",
        "United States",
        "Vatican",
    )
)
"""Countries that are written with "the"."""

CONTINENTS: Final = {
    ("africa",): "Africa",
    ("antarctica",): "Antarctica",
    ("asia",): "Asia",
    ("europe",): "Europe",
    ("north", "america"): "North America",
    ("oceania",): "Oceania",
    ("south", "america"): "South America",
}

_DEMONYMS: Final = """
Algerian Algeria, American United States, Argentine Argentina, Argentinian Argentina, Australian
Australia, Austrian Austria, Belgian Belgium, Bolivian Bolivia, Brazilian Brazil, British United
Kingdom, Bulgarian Bulgaria, Canadian Canada, Chilean Chile, Chinese China, Colombian Colombia,
Croatian Croatia, Cuban Cuba, Czech Czechia, Danish Denmark, Dutch Netherlands, Egyptian Egypt,
Estonian Estonia, Ethiopian Ethiopia, Finnish Finland, French France, German Germany, Ghanaian
Ghana, Greek Greece, Hungarian Hungary, Icelandic Iceland, Indian India, Indonesian Indonesia,
Iranian Iran, Iraqi Iraq, Irish Ireland, Israeli Israel, Italian Italy, Jamaican Jamaica, Japanese
Japan, Kenyan Kenya, Latvian Latvia, Lithuanian Lithuania, Malaysian Malaysia, Mexican Mexico,
Moroccan Morocco, Nepalese Nepal, Nigerian Nigeria, Norwegian Norway, Pakistani Pakistan, Peruvian
Peru, Polish Poland, Portuguese Portugal, Romanian Romania, Russian Russia, Saudi Saudi Arabia,
Scottish Scotland, Serbian Serbia, Slovak Slovakia, Slovenian Slovenia, Spanish Spain, Swedish
Sweden, Swiss Switzerland, Syrian Syria, Thai Thailand, Tunisian Tunisia, Turkish Turkey,
Ukrainian Ukraine, Venezuelan Venezuela, Vietnamese Vietnam
"""

_DEMONYMS_LISTED: Final = [" ".join(entry.split()) for entry in _DEMONYMS.split(",")]

DEMONYMS: Final = {
    fold(adjective): country
    for adjective, _, country in (entry.partition(" ") for entry in _DEMONYMS_LISTED)
}
"""Adjectives of countries, as in "the French capital"."""

CONNECTORS: Final = frozenset(
    [
        "al",
        "am",
        "an",
        "as",
        "at",
        "da",
        "das",
        "de",
        "del",
        "della",
        "den",
        "der",
        "des",
        "di",
        "do",
        "dos",
        "du",
        "el",
        "en",
        "es",
        "la",
        "le",
        "les",
        "of",
        "sur",
        "upon",
        "y",
    ]
)
"""Small words inside names of cities: Rio de Janeiro, Dar es Salaam, Frankfurt am Main."""

NAME_TAILS: Final = frozenset({"city", "town"})
"""Capitalised words that belong to the name before them: Mexico City, Cape Town."""


def is_country(name: str) -> bool:
    """Whether a name is a country's."""
    return tuple(fold(name).replace("-", " ").split()) in COUNTRIES


def with_article(name: str) -> str:
    """A name as it stands inside a sentence: "the Netherlands", "France"."""
    return f"the {name}" if fold(name) in ARTICLED else name
