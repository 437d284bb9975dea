"""Who hands in, and what they declare. `srkit submit` reads the values; nobody runs this file."""

ID = ""  # your student number
FIRST_NAME = ""
LAST_NAME = ""
EMAIL = ""

# True: "The network was trained by me, under the rules of contest.toml. What others wrote or trained is named in
# SOURCES. I have not used the test pictures."
DECLARATION = False
SOURCES = ""  # papers, code, pictures, people, AI tools

# True: measure my network as the mean over eight flips and turns, where contest.toml says ensemble = true.
ENSEMBLE = False
