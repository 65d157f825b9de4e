"""What the pocket language model knows about: the words and plain facts of its small worlds."""

from pocket.world.words import word_list

NAMES = word_list(
    "Anna Ben Clara Daniel Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor "
    "Adam Bella Carl Dora Eric Fiona Georg Hana Ivan Julia Kevin Laura Mark Nina Oscar Petra Robert Sara Tom Wendy"
)
THINGS = word_list(
    "apples books coins pencils shells stones stamps cards buttons marbles cookies eggs flowers balls cups plums "
    "nuts beans rings keys hats toys pears lemons ribbons candles bottles plates spoons tickets stars feathers"
)
HOLDERS = word_list("boxes bags baskets jars trays shelves drawers packs rows bowls crates pockets")
GROUPS = word_list("children people friends classes teams players workers guests")
TIMES = word_list("hour day week month year morning evening")

GAINS = word_list("finds gets picks collects wins makes receives earns")
LOSSES = word_list("loses eats drops breaks sells spends gives_away leaves_behind")

# thing: (what it is, what it is made of, where it is found, what it does or what it is for, size from 1 to 9)
FACTS = {
    "fish": ("an animal", "flesh", "in the water", "swim", 3),
    "bird": ("an animal", "flesh", "in a nest", "fly", 3),
    "horse": ("an animal", "flesh", "in a stable", "run", 7),
    "cat": ("an animal", "flesh", "in the house", "catch mice", 4),
    "dog": ("an animal", "flesh", "in the yard", "bark", 5),
    "mouse": ("an animal", "flesh", "in a hole", "hide", 2),
    "elephant": ("an animal", "flesh", "in the forest", "carry trees", 9),
    "ant": ("an animal", "flesh", "in the ground", "dig", 1),
    "bee": ("an animal", "flesh", "in the garden", "make honey", 1),
    "cow": ("an animal", "flesh", "on the farm", "give milk", 7),
    "tree": ("a plant", "wood", "in the forest", "grow leaves", 8),
    "rose": ("a plant", "leaves", "in the garden", "smell sweet", 2),
    "grass": ("a plant", "leaves", "in the field", "grow", 1),
    "knife": ("a tool", "iron", "in the kitchen", "cut bread", 3),
    "hammer": ("a tool", "iron", "in the workshop", "hit nails", 4),
    "saw": ("a tool", "iron", "in the workshop", "cut wood", 4),
    "spoon": ("a tool", "iron", "in the kitchen", "eat soup", 2),
    "broom": ("a tool", "wood", "in the house", "sweep the floor", 5),
    "pen": ("a tool", "plastic", "in the school", "write letters", 2),
    "bucket": ("a tool", "plastic", "in the yard", "carry water", 4),
    "lamp": ("a thing", "glass", "in the house", "give light", 4),
    "window": ("a thing", "glass", "in the wall", "let light in", 6),
    "cup": ("a thing", "glass", "in the kitchen", "hold tea", 2),
    "table": ("a thing", "wood", "in the kitchen", "hold plates", 6),
    "chair": ("a thing", "wood", "in the house", "sit on", 5),
    "door": ("a thing", "wood", "in the wall", "close a room", 7),
    "book": ("a thing", "paper", "in the library", "read", 3),
    "letter": ("a thing", "paper", "at the post office", "send news", 2),
    "coat": ("clothing", "wool", "in the closet", "keep warm", 5),
    "shoe": ("clothing", "leather", "under the bed", "walk", 3),
    "hat": ("clothing", "wool", "on the head", "cover the head", 3),
    "boat": ("a vehicle", "wood", "on the lake", "cross the water", 8),
    "car": ("a vehicle", "iron", "on the road", "drive", 8),
    "train": ("a vehicle", "iron", "at the station", "carry people", 9),
    "bread": ("food", "flour", "in the kitchen", "eat", 3),
    "cheese": ("food", "milk", "in the kitchen", "eat", 3),
    "soup": ("food", "water", "in the pot", "warm people", 3),
}

# material: what it is like, what happens to it in which case
MATERIALS = {
    "glass": ("hard and clear", "breaks when it falls"),
    "wood": ("light and strong", "floats on water"),
    "iron": ("heavy and hard", "sinks in water"),
    "paper": ("thin and light", "burns in a fire"),
    "wool": ("soft and warm", "gets heavy in the rain"),
    "leather": ("strong and smooth", "gets dry in the sun"),
    "plastic": ("light and smooth", "melts in a fire"),
    "ice": ("cold and clear", "melts in the sun"),
    "water": ("wet and clear", "freezes in the cold"),
    "milk": ("white and wet", "turns sour in the sun"),
    "flour": ("white and dry", "gets sticky in water"),
    "stone": ("heavy and hard", "sinks in water"),
}

# cause, effect, what a person does then, how the person feels
CAUSES = (
    ("it rains", "the street gets wet", "takes an umbrella", "wet"),
    ("the sun shines", "the snow melts", "puts on a hat", "warm"),
    ("the night comes", "it gets dark", "turns on the lamp", "tired"),
    ("the cup falls", "the cup breaks", "sweeps the floor", "sorry"),
    ("the fire burns", "the room gets warm", "sits near the fire", "warm"),
    ("the wind blows", "the leaves fall", "closes the window", "cold"),
    ("the bell rings", "the lesson starts", "runs to school", "late"),
    ("the dog barks", "the cat runs away", "opens the door", "afraid"),
    ("the milk boils", "the pot gets hot", "takes the pot away", "careful"),
    ("the winter comes", "the lake freezes", "puts on a coat", "cold"),
    ("the team wins", "the people cheer", "thanks the players", "happy"),
    ("the train is late", "the people wait", "reads a book", "bored"),
    ("the bread is gone", "the family is hungry", "goes to the shop", "hungry"),
    ("a friend comes", "there is a party", "bakes a cake", "happy"),
    ("the toy breaks", "the child cries", "mends the toy", "sad"),
)

# adjective, opposite: for comparisons of two things or people
OPPOSITES = (
    ("big", "small"), ("heavy", "light"), ("fast", "slow"), ("old", "young"), ("tall", "short"), ("strong", "weak"),
    ("rich", "poor"), ("warm", "cold"), ("long", "short"), ("hard", "soft"), ("full", "empty"), ("clean", "dirty"),
)  # fmt: skip

# Frequent English words, so that text from outside these worlds is not cut into single bytes.
COMMON = word_list(
    "the of and to a in is it you that he was for on are with as his they be at one have this from or had by hot but "
    "some what there we can out other were all your when up use word how said an each she which do their time if will "
    "way about many then them would write like so these her long make thing see him two has look more day could go "
    "come did my sound no most number who over know water than call first people may down side been now find any new "
    "work part take get place made live where after back little only round man year came show every good me give our "
    "under name very through just form much great think say help low line before turn cause same mean differ move "
    "right boy old too does tell sentence set three want air well also play small end put home read hand port large "
    "spell add even land here must big high such follow act why ask men change went light kind off need house picture "
    "try us again animal point mother world near build self earth father head stand own page should country found "
    "answer school grow study still learn plant cover food sun four thought let keep eye never last door between city "
    "tree cross since hard start might story saw far sea draw left late run while press close night real life few "
    "stop open seem together next white children begin got walk example ease paper often always music those both mark "
    "book letter until mile river car feet care second group carry took rain eat room friend began idea fish mountain "
    "north once base hear horse cut sure watch color face wood main enough plain girl usual young ready above ever "
    "red list though feel talk bird soon body dog family direct pose leave song measure state product black short "
    "numeral class wind question happen complete ship area half rock order fire south problem piece told knew pass "
    "farm top whole king size heard best hour better true during hundred remember step early hold west ground "
    "interest reach fast five sing listen six table travel less morning ten simple several vowel toward war lay "
    "against pattern slow center love person money serve appear road map science rule govern pull cold notice voice "
    "fall power town fine certain fly unit lead cry dark machine note wait plan figure star box noun field rest "
    "correct able pound done beauty drive stood contain front teach week final gave green quick develop sleep warm "
    "free minute strong special mind behind clear tail produce fact street inch lot nothing course stay wheel full "
    "force blue object decide surface deep moon island foot yet busy test record boat common gold possible plane age "
    "dry wonder laugh thousand ago ran check game shape yes hot miss brought heat snow bed bring sit perhaps fill "
    "east weight language among because dollars cents percent total remaining twice equal equals value points option "
    "choice following statement false energy matter pages days weeks hours years months minutes dollar cost costs "
    "buys buy earn work works old older spend needs share equally times bus aunt ages teams visit ill lunch trays "
    "bags boxes shop school stop stops ride hour price total sum each every difference together"
)
SENTENCE_STARTS = word_list(
    "The A An In It He She They This That There These What Which Who Why When Where How If Then After Before At On To "
    "For With And But So Because All Each Every One Two Three Question Answer Problem Choose Find Let Solve Compute "
    "Together Since From First Second Next Finally Later"
)
