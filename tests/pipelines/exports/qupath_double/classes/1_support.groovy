package com.google.gson

class Gson {
    Object fromJson(String text, Class kind) { new groovy.json.JsonSlurper().parseText(text) }
}
