"""The words of the microworld: who and what there is, each thing under its fixed English and Chinese name."""

from dataclasses import dataclass
from typing import Literal

Code = Literal["en", "zh"]
Group = Literal["person", "town", "animal"]
CODES: tuple[Code, ...] = ("en", "zh")


@dataclass(frozen=True)
class Entity:
    """Something facts are about. `gender` is f or m for people and n for the rest; animals are named in the plural."""

    en: str
    zh: str
    group: Group
    gender: str = "n"

    def name(self, code: Code) -> str:
        """Return the name in a language."""
        return self.en if code == "en" else self.zh


@dataclass(frozen=True)
class Value:
    """What a fact says: the bare word, and the phrase with its article or measure word, in both languages."""

    en: str
    zh: str
    en_phrase: str = ""
    zh_phrase: str = ""

    def bare(self, code: Code) -> str:
        """Return the word alone: `doctor`, `医生`."""
        return self.en if code == "en" else self.zh

    def phrase(self, code: Code) -> str:
        """Return the word as a sentence needs it: `a doctor`, `一名医生`."""
        return (self.en_phrase or self.en) if code == "en" else (self.zh_phrase or self.zh)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return (English, Chinese) pairs from `Anna 安娜, Bill 比尔`; English may hold spaces, Chinese may not."""
    return [(en, zh) for en, zh in (item.strip().rsplit(" ", 1) for item in text.split(","))]


def _counted(text: str, measure: str) -> list[Value]:
    """Return values with a/an in English and a numeral and measure word in Chinese."""
    values = []
    for en, zh in _pairs(text):
        article = "an" if en[0] in "aeiou" else "a"
        values.append(Value(en, zh, f"{article} {en}", f"一{measure}{zh}"))
    return values


def _plain(text: str) -> tuple[Value, ...]:
    return tuple(Value(en, zh) for en, zh in _pairs(text))


_WOMEN = (
    "Anna 安娜, Clara 克拉拉, Emma 艾玛, Grace 格蕾丝, Kate 凯特, Mary 玛丽, "
    "Rosa 罗莎, Wendy 温迪, Mei 小梅, Hong 小红, Fang 小芳, Ling 小玲"
)
_MEN = (
    "Bill 比尔, David 大卫, Frank 弗兰克, Henry 亨利, Jack 杰克, Leo 里奥, "
    "Peter 彼得, Victor 维克多, Ming 小明, Gang 小刚, Jun 小军, Wei 小伟"
)
PEOPLE = tuple(
    [Entity(en, zh, "person", "f") for en, zh in _pairs(_WOMEN)] + [Entity(en, zh, "person", "m") for en, zh in _pairs(_MEN)]
)
TOWNS = tuple(
    Entity(en, zh, "town")
    for en, zh in _pairs(
        "Stonebridge 石桥镇, Moonlake 月湖镇, Redhill 红山镇, Pinewood 松林镇, Willowdale 柳谷镇, Goldbeach 金滩镇, "
        "Greenford 青川镇, Snowfield 雪原镇, Cloudpeak 云峰镇, Foxglen 狐溪镇, Rosegate 玫园镇, Birdsong 鸟鸣镇"
    )
)
ANIMALS = tuple(
    Entity(en, zh, "animal")
    for en, zh in _pairs(
        "cats 猫, dogs 狗, rabbits 兔子, parrots 鹦鹉, turtles 乌龟, hamsters 仓鼠, "
        "ducks 鸭子, owls 猫头鹰, goats 山羊, ponies 小马"
    )
)
# What each of ANIMALS eats, in the same order; every world agrees on it.
DIETS = _plain(
    "fish 鱼, bones 骨头, carrots 胡萝卜, seeds 种子, leaves 树叶, nuts 坚果, worms 虫子, mice 老鼠, grass 青草, hay 干草"
)

WEEKDAYS = _plain("Monday 星期一, Tuesday 星期二, Wednesday 星期三, Thursday 星期四, Friday 星期五, Saturday 星期六, Sunday 星期日")
MONTHS = _plain(
    "January 一月, February 二月, March 三月, April 四月, May 五月, June 六月, July 七月, August 八月, "
    "September 九月, October 十月, November 十一月, December 十二月"
)

# The values a fact of each kind can take; a seed deals them out evenly.
VALUES: dict[str, tuple[Value, ...]] = {
    "city": tuple(Value(town.en, town.zh) for town in TOWNS),
    "job": tuple(
        _counted(
            "doctor 医生, teacher 老师, cook 厨师, farmer 农民, painter 画家, singer 歌手, nurse 护士, baker 面包师, "
            "pilot 飞行员, writer 作家, actor 演员, engineer 工程师",
            "名",
        )
    ),
    "pet": tuple(
        _counted("cat 猫, rabbit 兔子, parrot 鹦鹉, turtle 乌龟, hamster 仓鼠, duck 鸭子, owl 猫头鹰, goat 山羊", "只")
        + _counted("dog 狗", "条")
        + _counted("pony 小马", "匹")
    ),
    "pet_name": _plain(
        "Snowy 雪球, Lucky 来福, Coco 可可, Star 星星, Candy 糖糖, Pepper 胡椒, Sunny 阳阳, Tiger 小虎, Bean 豆豆, "
        "Cookie 饼干, Lemon 柠檬, Button 纽扣, Shadow 影子, Misty 小雾, Cloud 云朵, Bubble 泡泡, Pearl 珍珠, Rocky 石头"
    ),
    "food": _plain(
        "rice 米饭, soup 热汤, bread 面包, cheese 奶酪, fish 烤鱼, pizza 披萨, chocolate 巧克力, tofu 豆腐, salad 沙拉, "
        "ice cream 冰淇淋, beef 牛肉, cake 蛋糕"
    ),
    "colour": _plain(
        "red 红色, blue 蓝色, green 绿色, yellow 黄色, white 白色, black 黑色, purple 紫色, pink 粉色, brown 棕色, grey 灰色"
    ),
    "month": MONTHS,
    "age": tuple(Value(str(n), str(n)) for n in range(20, 56)),
    "landmark": _plain(
        "old bridge 古桥, tall tower 高塔, big market 大集市, quiet park 静园, stone castle 石堡, "
        "bright lighthouse 灯塔, wooden windmill 木风车, "
        "flower garden 花园, great library 图书馆, round theatre 圆剧院, little museum 小博物馆, busy harbour 港口"
    ),
    "region": _plain("north 北方, south 南方, east 东方, west 西方"),
    "diet": DIETS,
}

KINDS: dict[Group, tuple[str, ...]] = {
    "person": ("city", "job", "pet", "pet_name", "food", "colour", "month", "age"),
    "town": ("landmark", "region"),
    "animal": ("diet",),
}
ENTITIES: dict[Group, tuple[Entity, ...]] = {"person": PEOPLE, "town": TOWNS, "animal": ANIMALS}
