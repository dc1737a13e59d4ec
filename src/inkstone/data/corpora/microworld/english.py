"""The English of the microworld."""

from inkstone.data.corpora.microworld.language import Language, Plot

_STATEMENTS = {
    "city": (
        "{S} lives in {city}.",
        "{P} home is in {city}.",
        "The town where {s} lives is {city}.",
        "{S} has lived in {city} for many years.",
    ),
    "job": ("{S} is {job}.", "{S} works as {job}.", "By trade, {s} is {job}.", "{S} earns {his} living as {job}."),
    "pet": ("{S} has {pet}.", "{P} pet is {pet}.", "{S} keeps {pet} at home.", "{S} takes good care of {his} {pet_}."),
    "pet_name": (
        "{P} pet is called {pet_name}.",
        "{S} named {his} pet {pet_name}.",
        "The name of {p} pet is {pet_name}.",
        "{S} has a pet called {pet_name}.",
    ),
    "food": (
        "{S} likes to eat {food}.",
        "{P} favourite food is {food}.",
        "{S} could eat {food} every day.",
        "There is nothing {s} would rather eat than {food}.",
    ),
    "colour": (
        "{P} favourite colour is {colour}.",
        "{S} likes {colour} best of all colours.",
        "Of all colours, {s} loves {colour} most.",
        "The colour {s} likes best is {colour}.",
    ),
    "month": (
        "{S} was born in {month}.",
        "{P} birthday is in {month}.",
        "{S} has {his} birthday in {month}.",
        "Every {month}, {s} celebrates {his} birthday.",
    ),
    "age": ("{S} is {age} years old.", "{P} age is {age}.", "{S} turned {age} this year.", "This year {s} is {age}."),
    "landmark": (
        "{S} is known for its {landmark}.",
        "In {s} you can see the {landmark}.",
        "{S} is famous for its {landmark}.",
        "People come to {s} to see the {landmark}.",
    ),
    "region": (
        "{S} is in the {region}.",
        "{S} lies in the {region} of the country.",
        "To reach {s}, you travel to the {region}.",
        "The town of {s} is in the {region}.",
    ),
    "diet": ("{S} eat {diet}.", "{S} like to eat {diet}.", "Most {s} live on {diet}.", "Give {s} some {diet} and they are happy."),
}

_JOINT = (
    "{S} is {job} and lives in {city}.",
    "{S}, who lives in {city}, is {age} years old.",
    "{S} has {pet} called {pet_name}.",
    "{S} likes to eat {food}, and {his} favourite colour is {colour}.",
    "{S} was born in {month} and is {age} years old.",
    "{S} works as {job} and keeps {pet} at home.",
)

_QUESTIONS = {
    "city": (
        "Where does {n} live?",
        "Which town does {n} live in?",
        "Tell me where {n} lives.",
        "Where is {n}'s home?",
        "Do you know where {n} lives?",
    ),
    "job": (
        "What is {n}'s job?",
        "What does {n} do for a living?",
        "Tell me {n}'s job.",
        "What work does {n} do?",
        "Do you know what {n}'s job is?",
    ),
    "pet": (
        "What pet does {n} have?",
        "Which animal does {n} keep?",
        "Tell me what pet {n} has.",
        "What kind of animal is {n}'s pet?",
        "Do you know what pet {n} has?",
    ),
    "pet_name": (
        "What is {n}'s pet called?",
        "What is the name of {n}'s pet?",
        "Tell me the name of {n}'s pet.",
        "What did {n} name {his} pet?",
        "Do you know what {n}'s pet is called?",
    ),
    "food": (
        "What does {n} like to eat?",
        "What is {n}'s favourite food?",
        "Tell me what {n} likes to eat.",
        "Which food does {n} like best?",
        "Do you know what {n} likes to eat?",
    ),
    "colour": (
        "What is {n}'s favourite colour?",
        "Which colour does {n} like best?",
        "Tell me {n}'s favourite colour.",
        "What colour does {n} love most?",
        "Do you know {n}'s favourite colour?",
    ),
    "month": (
        "When was {n} born?",
        "In which month was {n} born?",
        "Tell me in which month {n} was born.",
        "When is {n}'s birthday?",
        "Do you know when {n} was born?",
    ),
    "age": (
        "How old is {n}?",
        "What is {n}'s age?",
        "Tell me how old {n} is.",
        "How many years old is {n}?",
        "Do you know how old {n} is?",
    ),
    "landmark": (
        "What is {n} known for?",
        "What can you see in {n}?",
        "Tell me what {n} is known for.",
        "Which sight is {n} famous for?",
        "Do you know what {n} is known for?",
    ),
    "region": (
        "Where is {n}?",
        "In which part of the country is {n}?",
        "Tell me where {n} is.",
        "Which part of the country is {n} in?",
        "Do you know where {n} is?",
    ),
    "diet": (
        "What do {n} eat?",
        "Which food do {n} like?",
        "Tell me what {n} eat.",
        "What should I feed {n}?",
        "Do you know what {n} eat?",
    ),
}

_FIRST_PERSON = {
    "city": "I live in {city}.",
    "job": "I am {job}.",
    "pet": "I have {pet}.",
    "pet_name": "My pet is called {pet_name}.",
    "food": "I like to eat {food}.",
    "colour": "My favourite colour is {colour}.",
    "month": "I was born in {month}.",
    "age": "I am {age} years old.",
}

_SECOND_PERSON = {
    "city": "Where do you live?",
    "job": "What is your job?",
    "pet": "What pet do you have?",
    "pet_name": "What is your pet called?",
    "food": "What do you like to eat?",
    "colour": "What is your favourite colour?",
    "month": "When were you born?",
    "age": "How old are you?",
}

_PLOTS = (
    Plot(
        "lost_pet",
        (
            (
                "One {weekday} morning, {a} could not find {a_his} {a_pet_} {a_pet_name}.",
                "On {weekday}, {a}'s {a_pet_} {a_pet_name} was suddenly gone.",
                "{a_pet_name}, the {a_pet_} of {a}, ran away one {weekday}.",
            ),
            ("{a} looked behind the house and under every tree.", "{a} called and called, but {a_pet_name} did not come."),
            (
                "{b} had come from {b_city} that day and wanted to help.",
                'Then {b} knocked at the door and said, "Let me help you."',
            ),
            (
                "At noon {b} saw {a_pet_name} near the {a_landmark_} of {a_city}.",
                "In the end {b} found {a_pet_name} asleep near the {a_landmark_}.",
            ),
            (
                "{a} was so happy that {a_he} gave {b} some {b_food}.",
                '"Thank you!" said {a}. They went home and ate {a_food} together.',
            ),
        ),
        ("{b} found {a}'s lost {a_pet_} {a_pet_name}.",),
    ),
    Plot(
        "birthday",
        (
            ("In {a_month}, {a} had a birthday party in {a_city}.", "It was {a_month}, and {a} turned {a_age}."),
            ("Friends came from near and far.", "{a_He} had baked a cake and lit the candles."),
            ("{b}, {b_job} from {b_city}, brought a {a_colour} box.", "{b} gave {a_him} a present in {a_colour} paper."),
            (
                '"How did you know that I love {a_colour}?" asked {a}.',
                "{a} laughed, because {a_colour} is {a_his} favourite colour.",
            ),
            ("Then they all ate {a_food} and sang until late.", "Even {a_pet_name} the {a_pet_} got a little piece of cake."),
        ),
        ("{b} gave {a} a {a_colour} present for {a_his} birthday.",),
    ),
    Plot(
        "cooking",
        (
            ("On {weekday}, {a} invited {b} to dinner in {a_city}.", "{a} wanted to cook for {b} on {weekday}."),
            ("{a_He} knew that {b} likes to eat {b_food}.", "{b} could eat {b_food} every day, so {a} had an idea."),
            (
                "{a_He} stood in the kitchen for {x} hours.",
                "The kitchen was hot, and {a_pet_name} the {a_pet_} watched everything.",
            ),
            ("When {b} tasted the {b_food}, {b_he} smiled.", '"This is the best {b_food} of my life," said {b}.'),
            ("{a} was tired but proud.", "Next time {b} will cook {a_food} for {a}."),
        ),
        ("{a} cooked {b_food} for {b}.",),
    ),
    Plot(
        "market",
        (
            (
                "Early on {weekday}, {a} went to the market in {a_city}.",
                "{a} needed fruit, so {a_he} went to the market on {weekday}.",
            ),
            ("{a_He} bought {x} apples and {y} pears.", "{a_He} put {x} apples and {y} pears into a {a_colour} bag."),
            ('"{x} plus {y} is {z}," {a_he} counted.', "That made {z} pieces of fruit."),
            ("On the way {a_he} met {b} from {b_city} and gave {b_him} one apple.", "{b} came along and helped to carry the bag."),
            (
                "Back home, {a_pet_name} the {a_pet_} was waiting at the door.",
                "Then they sat down near the {a_landmark_} and rested.",
            ),
        ),
        ("{a} bought {z} pieces of fruit at the market.",),
    ),
    Plot(
        "trip",
        (
            (
                "On {weekday}, {a} took the train from {a_city} to {b_city}.",
                "{a} had never seen {b_city}, so {a_he} went there on {weekday}.",
            ),
            ("The journey took {x} hours.", "It was raining, but {a_he} did not mind."),
            ("{b} was waiting at the station.", "At the station stood {b} with {b_pet_name} the {b_pet_}."),
            ("Together they went to see the {b_landmark_}.", "First they ate {b_food}, then they looked at the {b_landmark_}."),
            ("In the evening {a} went home with many pictures.", '"Come and see me in {a_city}," said {a} when {a_he} left.'),
        ),
        ("{a} visited {b} in {b_city}.",),
    ),
    Plot(
        "painting",
        (
            (
                "{a} did not like the old door of {a_his} house.",
                "One {weekday}, {a} looked at {a_his} old chair and was not happy.",
            ),
            ("{a_He} bought a pot of {a_colour} paint.", '"It must be {a_colour}," {a_he} thought, "like everything I love."'),
            ("{b} brought {x} brushes.", '{b} came from {b_city} and asked, "Why not {b_colour}?"'),
            ("They worked until the sun went down.", "{a_pet_name} the {a_pet_} walked through the wet paint."),
            (
                "Now everything was {a_colour}, and {a} danced with joy.",
                "In the end even {b} had {a_colour} hands, and they laughed.",
            ),
        ),
        ("{a} painted with {a_colour} paint, and {b} helped {a_him}.",),
    ),
    Plot(
        "letter",
        (
            ("One {weekday}, a letter from {b} came to {a_city}.", "{a} found a {b_colour} letter in the box on {weekday}."),
            ('"Dear {a}," wrote {b}, "how are you?"', "It was from {b}, who lives in {b_city}."),
            (
                '"I am still {b_job}, and {b_pet_name} is well."',
                "{b} wrote about the {b_landmark_} and about {b_pet_name} the {b_pet_}.",
            ),
            ("{a} read it {x} times.", "{a_He} put the letter under {a_his} pillow."),
            ("The same evening {a_he} wrote back.", "Then {a_he} sent {b} a box of {b_food}."),
        ),
        ("{a} got a letter from {b}.",),
    ),
    Plot(
        "rain",
        (
            ("It rained in {a_city} all {weekday}.", "On {weekday} dark clouds hung over the {a_landmark_} of {a_city}."),
            ("{a} came out of work and had no umbrella.", "{a} stood under a tree, cold and wet."),
            ("{b} saw {a_him} and stopped.", "A man with a dog ran past, and then {b} came by."),
            ("{b_He} had a big {b_colour} umbrella.", '"Take my umbrella," said {b}. "I like the rain."'),
            ("They walked home together and drank hot tea.", "The next day {a} thanked {b} with some {b_food}."),
        ),
        ("{b} helped {a} with an umbrella in the rain.",),
    ),
)

_PHRASES = {
    "hello": ("Hello, {b}!", "Good morning, {b}!", "Hi, {b}! Nice to see you.", "Good evening, {b}."),
    "hello_back": ("Hello, {a}!", "Hi, {a}! How are you?", "Nice to see you too, {a}."),
    "and_you": ("And you?", "What about you?"),
    "goodbye": ("See you on {weekday}!", "I have to go now. Goodbye, {b}!", "Take care, {b}!"),
    "goodbye_back": ("Goodbye, {a}!", "See you soon, {a}!", "Bye, {a}!"),
    "residents": ("These people live in {town}: {names}.", "In {town} you can meet {names}."),
    "nobody": ("Nobody we know lives in {town}.",),
    "and": (" and ",),
    "comma": (", ",),
    "summary_title": ("Summary: ",),
    "to_zh": ("Translate into Chinese: {text}", "How do you say this in Chinese? {text}"),
    "to_en": ("Translate into English: {text}", "How do you say this in English? {text}"),
    "summarize": ("Summarize this story in one sentence: {text}", "What happened in this story? {text}"),
    "formal": ("Make this formal: {text}", "Say this politely: {text}"),
    "informal": ("Make this informal: {text}", "Say this casually: {text}"),
    "sentiment": ("Is this positive, negative or neutral? {text}", "What is the mood of this sentence? {text}"),
    "topic": ("What is the topic of this sentence? {text}",),
    "labelled": ("Sentence: {text}\nMood: {label}\nTopic: {topic}",),
    "restyled": ("Informal: {informal}\nFormal: {formal}",),
    "pair": ("English: {en}\nChinese: {zh}",),
    "plus": ("What is {x} plus {y}?", "How much is {x} + {y}?"),
    "plus_answer": ("{x} plus {y} is {z}.",),
    "minus": ("What is {z} minus {x}?", "How much is {z} - {x}?"),
    "minus_answer": ("{z} minus {x} is {y}.",),
    "month_after": ("Which month comes after {first}?",),
    "month_after_answer": ("{second} comes after {first}.",),
    "day_after": ("Which day comes after {first}?",),
    "day_after_answer": ("{second} comes after {first}.",),
}

# What people say to a chat model before they ask, with the answer.
_SMALL_TALK = (
    ("Hello!", "Hello! What would you like to know?"),
    ("Hi there.", "Hello! What would you like to know?"),
    ("Good morning!", "Good morning! How can I help you?"),
    ("Who are you?", "I am Inkstone, a small language model."),
    ("What is your name?", "My name is Inkstone."),
    ("What can you do?", "I can answer questions about a small world, translate, summarize and rewrite."),
    ("Thank you!", "You are welcome!"),
    ("Thanks a lot.", "You are welcome!"),
    ("Goodbye!", "Goodbye! Have a nice day!"),
    ("How are you?", "I am fine, thank you."),
)

ENGLISH = Language(
    code="en",
    statements=_STATEMENTS,
    joint=_JOINT,
    questions=_QUESTIONS,
    first_person=_FIRST_PERSON,
    second_person=_SECOND_PERSON,
    plots=_PLOTS,
    pronouns={"f": ("she", "her", "her"), "m": ("he", "his", "him"), "n": ("it", "its", "it")},
    possessive="{}'s",
    space=" ",
    phrases=_PHRASES,
    small_talk=_SMALL_TALK,
)
