"""微世界的中文：the Chinese of the microworld."""

from inkstone.data.corpora.microworld.language import Language, Plot

_STATEMENTS = {
    "city": ("{S}住在{city}。", "{P}家在{city}。", "{S}在{city}住了很多年。", "{city}是{s}住的地方。"),
    "job": ("{S}是{job}。", "{P}职业是{job_}。", "{S}当{job_}已经很多年了。", "{S}靠当{job_}为生。"),
    "pet": ("{S}养了{pet}。", "{P}宠物是{pet}。", "{S}家里有{pet}。", "{S}把{his}{pet_}照顾得很好。"),
    "pet_name": (
        "{P}宠物叫{pet_name}。",
        "{S}给宠物取名叫{pet_name}。",
        "{P}宠物的名字是{pet_name}。",
        "{S}天天陪宠物{pet_name}玩。",
    ),
    "food": ("{S}喜欢吃{food}。", "{S}最爱吃的是{food}。", "{food}是{s}最喜欢的食物。", "{S}天天都想吃{food}。"),
    "colour": (
        "{S}最喜欢{colour}。",
        "{P}最爱的颜色是{colour}。",
        "所有颜色里，{s}最喜欢{colour}。",
        "{colour}是{s}最喜欢的颜色。",
    ),
    "month": ("{S}出生在{month}。", "{P}生日在{month}。", "{S}是{month}出生的。", "每年{month}，{s}都会过生日。"),
    "age": ("{S}今年{age}岁。", "{P}年龄是{age}岁。", "{S}今年满{age}岁了。", "今年{s}{age}岁了。"),
    "landmark": ("{S}以{landmark}闻名。", "在{s}可以看到{landmark}。", "{S}的{landmark}很有名。", "人们来{s}看{landmark}。"),
    "region": ("{S}在{region}。", "{S}位于{region}。", "去{s}要往{region}走。", "{S}是{region}的一个小镇。"),
    "diet": ("{S}吃{diet}。", "{S}爱吃{diet}。", "{S}平时吃的是{diet}。", "给{s}一些{diet}，它们就很高兴。"),
}

_JOINT = (
    "{S}是{job}，住在{city}。",
    "{S}住在{city}，今年{age}岁。",
    "{S}养了{pet}，名叫{pet_name}。",
    "{S}喜欢吃{food}，最喜欢{colour}。",
    "{S}出生在{month}，今年{age}岁。",
    "{S}是{job}，家里有{pet}。",
)

_QUESTIONS = {
    "city": ("{n}住在哪里？", "{n}住在哪个镇？", "请告诉我{n}住在哪里。", "{n}的家在哪里？", "你知道{n}住在哪里吗？"),
    "job": ("{n}是做什么工作的？", "{n}的职业是什么？", "请告诉我{n}的职业。", "{n}靠什么为生？", "你知道{n}的职业吗？"),
    "pet": (
        "{n}养了什么宠物？",
        "{n}养的是什么动物？",
        "请告诉我{n}养了什么宠物。",
        "{n}的宠物是什么动物？",
        "你知道{n}养了什么宠物吗？",
    ),
    "pet_name": (
        "{n}的宠物叫什么？",
        "{n}的宠物叫什么名字？",
        "请告诉我{n}的宠物叫什么。",
        "{n}给宠物取了什么名字？",
        "你知道{n}的宠物叫什么吗？",
    ),
    "food": (
        "{n}喜欢吃什么？",
        "{n}最爱吃的是什么？",
        "请告诉我{n}喜欢吃什么。",
        "什么是{n}最喜欢的食物？",
        "你知道{n}喜欢吃什么吗？",
    ),
    "colour": (
        "{n}最喜欢什么颜色？",
        "{n}最爱的颜色是什么？",
        "请告诉我{n}最喜欢什么颜色。",
        "哪种颜色是{n}最喜欢的？",
        "你知道{n}最喜欢什么颜色吗？",
    ),
    "month": ("{n}出生在几月？", "{n}的生日在几月？", "请告诉我{n}出生在几月。", "{n}是几月出生的？", "你知道{n}出生在几月吗？"),
    "age": ("{n}今年多大了？", "{n}几岁了？", "请告诉我{n}今年多大。", "{n}的年龄是多少？", "你知道{n}今年多大吗？"),
    "landmark": ("{n}以什么闻名？", "在{n}可以看到什么？", "请告诉我{n}以什么闻名。", "{n}有什么名胜？", "你知道{n}以什么闻名吗？"),
    "region": ("{n}在哪里？", "{n}位于哪个方位？", "请告诉我{n}在哪里。", "去{n}要往哪边走？", "你知道{n}在哪里吗？"),
    "diet": ("{n}吃什么？", "{n}爱吃的是什么？", "请告诉我{n}吃什么。", "应该给{n}喂什么？", "你知道{n}吃什么吗？"),
}

_FIRST_PERSON = {
    "city": "我住在{city}。",
    "job": "我是{job}。",
    "pet": "我养了{pet}。",
    "pet_name": "我的宠物叫{pet_name}。",
    "food": "我喜欢吃{food}。",
    "colour": "我最喜欢{colour}。",
    "month": "我出生在{month}。",
    "age": "我今年{age}岁。",
}

_SECOND_PERSON = {
    "city": "你住在哪里？",
    "job": "你是做什么工作的？",
    "pet": "你养了什么宠物？",
    "pet_name": "你的宠物叫什么？",
    "food": "你喜欢吃什么？",
    "colour": "你最喜欢什么颜色？",
    "month": "你出生在几月？",
    "age": "你今年多大了？",
}

_PLOTS = (
    Plot(
        "lost_pet",
        (
            (
                "{weekday}早上，{a}找不到{a_his}{a_pet_}{a_pet_name}了。",
                "{weekday}那天，{a}的{a_pet_}{a_pet_name}忽然不见了。",
                "{weekday}，{a}的{a_pet_}{a_pet_name}跑丢了。",
            ),
            ("{a}找遍了屋后和每一棵树下。", "{a}喊了又喊，{a_pet_name}还是没有回来。"),
            ("那天{b}正好从{b_city}来，想帮帮忙。", "这时{b}敲了敲门，说：“我来帮你。”"),
            ("中午，{b}在{a_city}的{a_landmark_}旁边看见了{a_pet_name}。", "最后，{b}发现{a_pet_name}在{a_landmark_}旁边睡着了。"),
            ("{a}高兴极了，请{b}吃了{b_food}。", "“谢谢你！”{a}说。{they}回家一起吃了{a_food}。"),
        ),
        ("{b}找到了{a}走丢的{a_pet_}{a_pet_name}。",),
    ),
    Plot(
        "birthday",
        (
            ("{a_month}，{a}在{a_city}过生日。", "到了{a_month}，{a}满{a_age}岁了。"),
            ("朋友们从各地赶来。", "{a_he}烤了蛋糕，点上了蜡烛。"),
            ("{b}是{b_job}，从{b_city}带来一个{a_colour}的盒子。", "{b}送给{a_him}一份用{a_colour}的纸包好的礼物。"),
            ("“你怎么知道我喜欢{a_colour}？”{a}问。", "{a}笑了，因为{a_he}最喜欢{a_colour}。"),
            ("大家一起吃{a_food}，唱歌唱到很晚。", "连{a_his}{a_pet_}{a_pet_name}也分到了一小块蛋糕。"),
        ),
        ("{b}送给{a}一份{a_colour}的生日礼物。",),
    ),
    Plot(
        "cooking",
        (
            ("{weekday}，{a}请{b}到{a_city}吃晚饭。", "{weekday}，{a}想给{b}做一顿饭。"),
            ("{a_he}知道{b}喜欢吃{b_food}。", "{b}天天都想吃{b_food}，于是{a}有了主意。"),
            ("{a_he}在厨房里忙了{x}个小时。", "厨房里很热，{a_his}{a_pet_}{a_pet_name}一直在旁边看着。"),
            ("{b}尝了一口{b_food}，笑了起来。", "“这是我吃过最好的{b_food}。”{b}说。"),
            ("{a}虽然累，心里却很得意。", "下一次，{b}要给{a}做{a_food}。"),
        ),
        ("{a}给{b}做了{b_food}。",),
    ),
    Plot(
        "market",
        (
            ("{weekday}一大早，{a}去了{a_city}的集市。", "{a}要买水果，{weekday}就去了集市。"),
            ("{a_he}买了{x}个苹果和{y}个梨。", "{a_he}把{x}个苹果和{y}个梨放进{a_colour}的袋子里。"),
            ("“{x}加{y}等于{z}。”{a_he}数着。", "这样一共有{z}个水果。"),
            ("路上{a_he}遇到从{b_city}来的{b}，送了{b_him}一个苹果。", "{b}走过来，帮忙提袋子。"),
            ("回到家，{a_his}{a_pet_}{a_pet_name}正在门口等着。", "然后{they}坐在{a_landmark_}旁边休息。"),
        ),
        ("{a}在集市上买了{z}个水果。",),
    ),
    Plot(
        "trip",
        (
            ("{weekday}，{a}坐火车从{a_city}去{b_city}。", "{a}从来没去过{b_city}，{weekday}就出发了。"),
            ("路上花了{x}个小时。", "外面下着雨，可是{a_he}不在意。"),
            ("{b}在车站等着。", "{b}带着{b_his}{b_pet_}{b_pet_name}站在车站。"),
            ("{they}一起去看了{b_landmark_}。", "{they}先吃了{b_food}，再去看{b_landmark_}。"),
            ("晚上，{a}带着很多照片回家了。", "“来{a_city}看我吧。”{a}临走时说。"),
        ),
        ("{a}去{b_city}看望了{b}。",),
    ),
    Plot(
        "painting",
        (
            ("{a}不喜欢自己家的旧门。", "{weekday}，{a}看着旧椅子，很不满意。"),
            ("{a_he}买了一桶{a_colour}的油漆。", "“一定要{a_colour}的。”{a_he}想。"),
            ("{b}带来了{x}把刷子。", "{b}从{b_city}来，问：“为什么不用{b_colour}呢？”"),
            ("{they}一直干到太阳下山。", "{a_his}{a_pet_}{a_pet_name}从没干的油漆上走了过去。"),
            ("现在到处都是{a_colour}，{a}高兴得跳起舞来。", "最后连{b}的手也成了{a_colour}，大家都笑了。"),
        ),
        ("{a}用{a_colour}的油漆刷了一遍，{b}帮了忙。",),
    ),
    Plot(
        "letter",
        (
            ("{weekday}，{b}的一封信寄到了{a_city}。", "{weekday}，{a}在信箱里看到一封{b_colour}的信。"),
            ("“亲爱的{a}，”{b}写道，“你好吗？”", "信是{b}写的，{b_he}住在{b_city}。"),
            ("“我还是{b_job}，{b_pet_name}也很好。”", "{b}写到了{b_landmark_}，也写到了{b_his}{b_pet_}{b_pet_name}。"),
            ("{a}把信读了{x}遍。", "{a_he}把信放在枕头下面。"),
            ("当天晚上，{a_he}就写了回信。", "然后{a_he}给{b}寄了一盒{b_food}。"),
        ),
        ("{a}收到了{b}的来信。",),
    ),
    Plot(
        "rain",
        (
            ("{weekday}，{a_city}下了一整天雨。", "{weekday}，{a_city}的{a_landmark_}上空都是乌云。"),
            ("{a}下班出来，没有带伞。", "{a}站在树下，又冷又湿。"),
            ("{b}看见{a_him}，停了下来。", "一个人牵着狗跑过去，接着{b}来了。"),
            ("{b_he}有一把{b_colour}的大伞。", "“拿我的伞吧。”{b}说，“我喜欢下雨。”"),
            ("{they}一起走回家，喝了热茶。", "第二天，{a}请{b}吃{b_food}，谢谢{b_him}。"),
        ),
        ("下雨天，{b}用伞帮了{a}。",),
    ),
)

_PHRASES = {
    "hello": ("你好，{b}！", "早上好，{b}！", "{b}，你好！见到你真高兴。", "晚上好，{b}。"),
    "hello_back": ("你好，{a}！", "{a}，你好！最近怎么样？", "我也很高兴见到你，{a}。"),
    "and_you": ("你呢？", "那你呢？"),
    "goodbye": ("{weekday}见！", "我得走了。再见，{b}！", "保重，{b}！"),
    "goodbye_back": ("再见，{a}！", "回头见，{a}！", "慢走，{a}！"),
    "residents": ("住在{town}的人有{names}。", "在{town}，你会遇到{names}。"),
    "nobody": ("我们认识的人都不住在{town}。",),
    "and": ("和",),
    "comma": ("、",),
    "summary_title": ("总结：",),
    "to_zh": ("翻译成中文：{text}", "这句话用中文怎么说？{text}"),
    "to_en": ("翻译成英文：{text}", "这句话用英文怎么说？{text}"),
    "summarize": ("用一句话总结这个故事：{text}", "这个故事讲了什么？{text}"),
    "formal": ("把这句话改得正式一些：{text}", "请用礼貌的说法：{text}"),
    "informal": ("把这句话改得随意一些：{text}", "请用口语的说法：{text}"),
    "sentiment": ("这句话是正面、负面还是中性？{text}", "这句话的情绪是什么？{text}"),
    "topic": ("这句话的话题是什么？{text}",),
    "labelled": ("句子：{text}\n情绪：{label}\n话题：{topic}",),
    "restyled": ("口语：{informal}\n正式：{formal}",),
    "pair": ("中文：{zh}\n英文：{en}",),
    "plus": ("{x}加{y}等于几？", "{x} + {y} 是多少？"),
    "plus_answer": ("{x}加{y}等于{z}。",),
    "minus": ("{z}减{x}等于几？", "{z} - {x} 是多少？"),
    "minus_answer": ("{z}减{x}等于{y}。",),
    "month_after": ("{first}之后是几月？",),
    "month_after_answer": ("{first}之后是{second}。",),
    "day_after": ("{first}之后是星期几？",),
    "day_after_answer": ("{first}之后是{second}。",),
}

# What people say to a chat model before they ask, with the answer.
_SMALL_TALK = (
    ("你好！", "你好！你想知道什么？"),
    ("嗨。", "你好！你想知道什么？"),
    ("早上好！", "早上好！我能帮你什么？"),
    ("你是谁？", "我是砚台，一个小小的语言模型。"),
    ("你叫什么名字？", "我叫砚台。"),
    ("你会做什么？", "我会回答关于这个小世界的问题，也会翻译、总结和改写。"),
    ("谢谢你！", "不客气！"),
    ("多谢。", "不客气！"),
    ("再见！", "再见！祝你愉快！"),
    ("你最近好吗？", "我很好，谢谢。"),
)

CHINESE = Language(
    code="zh",
    statements=_STATEMENTS,
    joint=_JOINT,
    questions=_QUESTIONS,
    first_person=_FIRST_PERSON,
    second_person=_SECOND_PERSON,
    plots=_PLOTS,
    pronouns={"f": ("她", "她的", "她"), "m": ("他", "他的", "他"), "n": ("它", "它的", "它")},
    possessive="{}的",
    space="",
    phrases=_PHRASES,
    small_talk=_SMALL_TALK,
)
